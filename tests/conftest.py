import subprocess

import numpy as np
import pytest
import torch
from running import copy_project, snakemake

from convergent.nets import models


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def small_net():
    """An AlexNet for 16 pixel grey images, with few units."""
    torch.manual_seed(0)
    return models.build(
        "alexnet",
        size=16,
        inputs=1,
        classes=3,
        channels=(4, 6, 8, 8, 6),
        fully_connected=(10, 9),
        kernel=3,
        stride=1,
        padding=1,
        init="kaiming",
    )


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A copy of the repository with a small configuration, run undisturbed."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    # Jobs that start by themselves have the memory that they need. Most tests run others as forks,
    # whose results must be the same.
    snakemake(folder, env={"CONVERGENT_FORKS": "0"})
    return folder
