"""Jobs as forks of a process that has their libraries loaded, against jobs by themselves."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "workflow"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks safely")

# What stands for Snakemake: it starts the server, runs commands one after another, and ends.
WORKFLOW = """
import json, os, subprocess, sys
sys.path.insert(0, {library!r})
from convergent.running.forks import start_server

launch = start_server({scripts!r})
for number, script in enumerate(sys.argv[1:]):
    if "THREADS" in os.environ:  # of each script
        os.environ["OMP_NUM_THREADS"] = os.environ["THREADS"].split(",")[number]
    command = f"{{launch or ''}} {{sys.executable}} {{script}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd={folder!r})
    print(json.dumps([done.returncode, done.stdout, done.stderr]), flush=True)
"""


@pytest.fixture
def workflow(tmp_path):
    """Return a function that starts the stand-in of Snakemake on scripts of the given text."""
    scripts, folder = tmp_path / "scripts", tmp_path / "folder"
    scripts.mkdir()
    folder.mkdir()
    (scripts / "_job.py").write_text(
        "import os\nos.environ['PREPARED'] = 'yes'\n", encoding="utf-8"
    )

    def start(*texts, **variables):
        variables = {"TMPDIR": str(tmp_path)} | variables
        files = []
        for number, text in enumerate(texts):
            files.append(tmp_path / f"{number}.py")
            files[-1].write_text(textwrap.dedent(text), encoding="utf-8")
        known = {"library": str(LIBRARY), "scripts": str(scripts), "folder": str(folder)}
        return subprocess.Popen(
            [sys.executable, "-c", WORKFLOW.format(**known), *map(str, files)],
            stdout=subprocess.PIPE, text=True, env=os.environ | variables,
        )  # fmt: skip

    yield start
    assert not list(tmp_path.glob("convergent-*"))  # the folder of the server's address


def results(process):
    return [json.loads(line) for line in process.communicate(timeout=60)[0].splitlines()]


SAYS = """
import os, sys
print(os.getcwd(), os.environ.get("PREPARED"), os.environ["OMP_NUM_THREADS"], sys.argv)
print(__name__, __file__)
print("to the other stream", file=sys.stderr)
sys.exit(3)
"""


def test_a_fork_is_the_job_that_python_would_run(workflow, tmp_path):
    (of_fork,) = results(workflow(SAYS, OMP_NUM_THREADS="2"))
    script = str(tmp_path / "0.py")
    assert of_fork == [
        3,
        f"{tmp_path}/folder yes 2 ['{script}']\n__main__ {script}\n",
        "to the other stream\n",
    ]
    (by_itself,) = results(workflow(SAYS, OMP_NUM_THREADS="2", CONVERGENT_FORKS="0"))
    # Only the module that jobs import first has not been imported by this script.
    assert by_itself == [of_fork[0], of_fork[1].replace(" yes ", " None "), of_fork[2]]


def test_without_room_for_an_address_jobs_run_by_themselves(workflow, tmp_path):
    far = tmp_path / ("x" * 100)
    far.mkdir()
    (said,) = results(workflow("import sys\nprint('_job' in sys.modules)", TMPDIR=str(far)))
    assert said == [0, "False\n", ""]
    assert not list(far.iterdir())


LOADED = """
import importlib, sys
print("wave" in sys.modules, "_job" in sys.modules, "own" in sys.modules)
importlib.import_module("wave")
sys.modules["own"] = sys
"""


def test_later_jobs_find_what_earlier_ones_imported(workflow):
    assert [said for _, said, _ in results(workflow(LOADED, LOADED, LOADED))] == [
        # The first finds nothing; later ones find modules of Python, and nothing that a job made.
        "False True False\n", "True True False\n", "True True False\n",
    ]  # fmt: skip


def test_jobs_find_what_their_scripts_name(workflow):
    script = """
    import sys
    print(*(name in sys.modules for name in ["wave", "zarr", "torch", "convergent.nets.marks"]))
    def main():
        import wave
        # Imports zarr at once, and torch in functions alone.
        from convergent.nets import marks
    """
    assert [said for _, said, _ in results(workflow(script))] == ["True True False False\n"]
    # The job, not the server, says what is wrong.
    code, _, error = results(workflow("import wave\nx ="))[0]
    assert (code, "SyntaxError" in error) == (1, True)


def test_jobs_of_other_environments_have_other_servers(workflow):
    parent = "import os\nprint(os.getppid(), os.environ['OMP_NUM_THREADS'])"
    said = [text.split() for _, text, _ in results(workflow(*[parent] * 3, THREADS="1,2,1"))]
    assert [threads for _, threads in said] == ["1", "2", "1"]
    assert said[0][0] == said[2][0] != said[1][0]


def test_an_error_of_a_job_is_its_own(workflow):
    broken, killed, after = results(
        workflow(
            "raise ValueError('of the job')",
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
            "print('goes on')",
        )
    )
    assert broken[0] == 1
    assert "Traceback" in broken[2]
    assert broken[2].endswith("ValueError: of the job\n")
    assert killed[0] in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert after == [0, "goes on\n", ""]


WAITS = """
import os, pathlib, signal, sys, time
def note(number, frame):
    pathlib.Path("signal").write_text(str(number), encoding="utf-8")
    sys.exit(5)
signal.signal(signal.SIGTERM, note)
pathlib.Path("pids.part").write_text(f"{os.getpid()}", encoding="utf-8")
os.rename("pids.part", "pids")
time.sleep(60)
"""


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def launcher_of(script):
    """Return the process that waits for a job."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(part.endswith(b"launch.py") for part in command) and str(script).encode() in command:
            return int(folder.name)
    return None


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_reaches_the_launcher_reaches_the_job(workflow, tmp_path, number):
    process = workflow(WAITS)
    pids = tmp_path / "folder/pids"
    wait_for(pids.exists)
    job, launcher = int(pids.read_text(encoding="utf-8")), launcher_of(tmp_path / "0.py")
    assert job != launcher
    os.kill(launcher, number)
    ((code, _, _),) = results(process)
    if number == signal.SIGTERM:  # The job decides how it ends.
        assert code == 5
        assert (tmp_path / "folder/signal").read_text(encoding="utf-8") == str(int(signal.SIGTERM))
    wait_for(lambda: not is_running(job))


def test_the_server_ends_with_snakemake_but_not_the_jobs(workflow, tmp_path):
    process = workflow(WAITS)
    pids = tmp_path / "folder/pids"
    wait_for(pids.exists)
    job = int(pids.read_text(encoding="utf-8"))
    server = int(
        Path(f"/proc/{job}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
    )
    process.kill()
    process.wait()
    time.sleep(0.5)
    # As jobs do that Snakemake started by itself, the job goes on if Snakemake is killed.
    assert is_running(job)
    assert is_running(server)
    os.kill(job, signal.SIGTERM)
    wait_for(lambda: not is_running(job) and not is_running(server))
