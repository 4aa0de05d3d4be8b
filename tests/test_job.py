"""What every job finds and leaves, whatever its environment says."""

import os
import shutil
import subprocess
import sys

import pytest
from running import ROOT

# As a script of a rule: what it imports, and a process that it starts by spawning itself.
JOB = """
import sys
sys.path[:0] = ["workflow/scripts", "packages"]
import _job, multiprocessing
import numpy, convergent.running.progress

if __name__ == "__main__":
    print(numpy.__cached__, convergent.running.progress.__cached__, sep="\\n", flush=True)
    context = multiprocessing.get_context("spawn")
    context.Process(target=print, args=[42]).start()
"""


@pytest.fixture
def job(tmp_path):
    """Runs a job whose NumPy is a pretended one; gives where compiled modules lie."""
    shutil.copytree(
        ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "packages/numpy").mkdir(parents=True)
    (tmp_path / "packages/numpy/__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "job.py").write_text(JOB, encoding="utf-8")

    def run(**environment):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [sys.executable, "job.py"],
            cwd=tmp_path, env=clean | environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        *compiled, last = done.stdout.split()
        assert last == "42", done.stderr
        return [tmp_path / path for path in compiled]

    run.folder = tmp_path
    return run


def test_compiled_modules_lie_beside_packages_that_are_compiled(job):
    compile_all = [sys.executable, "-m", "compileall", "-q", job.folder / "packages"]
    subprocess.run(compile_all, check=True)
    numpy, progress = job(PYTHONDONTWRITEBYTECODE="1")
    assert numpy.parent == job.folder / "packages/numpy/__pycache__"
    assert progress.parent == job.folder / "workflow/convergent/running/__pycache__"
    assert progress.exists()
    assert not (job.folder / ".snakemake/cache/PYTHONPYCACHEPREFIX").exists()


def test_compiled_modules_of_others_lie_with_snakemakes_files(job):
    """And are used by the next job."""
    found = job(PYTHONDONTWRITEBYTECODE="1")
    cache = job.folder / ".snakemake/cache/PYTHONPYCACHEPREFIX"
    assert all(path.exists() and path.is_relative_to(cache) for path in found)
    assert not list(job.folder.rglob("__pycache__"))
    times = [path.stat().st_mtime_ns for path in found]
    assert job(PYTHONDONTWRITEBYTECODE="1") == found
    assert [path.stat().st_mtime_ns for path in found] == times


def test_a_prefix_that_is_set_is_kept(job):
    own = job.folder / "own"
    found = job(PYTHONPYCACHEPREFIX=str(own), PYTHONDONTWRITEBYTECODE="1")
    assert all(path.exists() and path.is_relative_to(own) for path in found)


def test_without_the_variable_nothing_changes(job):
    numpy, progress = job()
    assert numpy.parent == job.folder / "packages/numpy/__pycache__"
    assert numpy.exists()
    assert progress.exists()
