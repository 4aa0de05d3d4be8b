"""The code of the README does what it says, on any system."""

import ast
import os
import re

import numpy as np
import torch
from running import LAYERS, ROOT

from convergent.running import stores


def test_the_example_runs_where_there_is_no_linux(tmp_path, monkeypatch, small_net, rng):
    """Each line, on what its names stand for; macOS has no `sched_getaffinity`."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.chdir(tmp_path)
    example = re.search(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )[1]
    within = np.corrcoef(rng.normal(size=(10, 50)))
    names = {
        "x": rng.normal(size=(500, 10)),
        "y": rng.normal(size=(500, 10)),
        "within_a": within,
        "within_b": within,
        "net": small_net.eval(),
        "images": torch.rand(5, 1, 16, 16),
        "layers": LAYERS,
        "unit": np.zeros(5, int),
    }
    for line in ast.parse(example).body:
        if "deconvolve" in ast.unparse(line):  # where x and y are places in the images
            names |= dict.fromkeys("yx", np.zeros(5, int))
        code = ast.unparse(line).replace("k=40", "k=3")
        exec(code, names)
    assert names["weights"].shape == (2, 10, 10)
    assert names["gaps"].max() <= 1e-6
    assert list(stores.open_store("net.zarr")) != []
