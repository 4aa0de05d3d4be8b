"""Mistakes that Snakemake would answer with a traceback end in a sentence with the remedy."""

import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from running import ENVIRONMENT, ROOT, copy_repository, snakemake

from convergent.running.command_line import faults
from convergent.running.installed import TO_READ_RULES, missing_packages


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with configurations, good and bad."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "presets/cifar10.yaml": "run: cifar10\n",
        "presets/mlp.yaml": "run: mlp\n",
        "tab.yaml": "a:\n\tb: 2\n",
        "empty.yaml": "",
        "config.yaml": "run: mine\n",
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    return tmp_path


def asked(*files, config=(), directory=None):
    return Namespace(configfile=[Path(file) for file in files], config=config, directory=directory)


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ("training.epochs=5", {"training": {"epochs": 5}}),
        ("data.subset.half=1", {"data": {"subset": {"half": 1}}}),
        ("nets.net4=null", {"nets": {"net4": None}}),
    ],
)
def test_keys_with_dots_are_shown_in_braces(folder, entry, values):
    (told,) = faults(asked(config=["run=mine", entry]))
    assert told.startswith(f"{entry}: ")
    section, _, value = re.search("--config '(.*)'$", told)[1].partition("=")
    assert {section: yaml.safe_load(value)} == values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (asked("presets/cifar.yaml"), r"^presets/cifar.yaml: .* mean presets/cifar10.yaml\?$"),
        (asked("presets/zzz.yaml"), "; there are cifar10, mlp$"),
        (asked("presets/mlp.yaml", "fig3"), "^fig3: .*targets stand before --configfile: "),
        (asked("tab.yaml"), r"^tab.yaml: not valid YAML: .*\(line 2\)$"),
        (asked("empty.yaml"), "^empty.yaml: should hold keys"),
        (asked(config=["run=mine", "fig3"]), "^fig3: --config takes KEY=VALUE.*targets stand"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_remedy(folder, arguments, message):
    (told,) = faults(arguments)
    assert re.search(message, told)


def test_the_folder_s_own_configuration_is_looked_at(folder):
    assert list(faults(asked("presets/mlp.yaml", config=["run=mine"]))) == []
    Path("config.yaml").write_text("run: [", encoding="utf-8")
    assert next(faults(asked())).startswith("config.yaml: not valid YAML")
    assert list(faults(asked(directory="presets"))) == []


def test_the_profile_asks_before_snakemake_fails(tmp_path):
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "-n"]
    run = subprocess.run(
        [*command, "--config", "training.epochs=5"],
        cwd=tmp_path, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    *_, last = run.stderr.splitlines()
    assert run.returncode == 1
    assert last.endswith("--config 'training={epochs: 5}'")
    assert "Traceback" not in run.stderr


def test_missing_packages_are_named_before_they_are_imported(tmp_path):
    assert missing_packages(ROOT / "pyproject.toml") == []
    assert missing_packages(tmp_path / "pyproject.toml") == []
    copy_repository(tmp_path)
    text = '[project]\ndependencies = ["numpy>=2", "no-such-package[all]>=3,<4", "pydantic"]\n'
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    assert missing_packages(tmp_path / "pyproject.toml") == ["no-such-package"]
    assert missing_packages(tmp_path / "pyproject.toml", TO_READ_RULES) == []
    output = snakemake(tmp_path, "-n", fails=True)
    assert "no-such-package. `uv run snakemake` installs all that is needed" in output
