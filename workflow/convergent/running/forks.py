"""Jobs that start as forks of a process which has their libraries loaded.

Importing PyTorch, scikit-learn and Matplotlib takes seconds, longer than most jobs work. One
process for each environment (jobs of one thread and of two have different ones) therefore imports
what a job's script names and what jobs before have imported, and each job is a fork of it. The job
is otherwise the same: it runs the same file in the same folder with the same variables and streams,
and what it writes to its memory stays its own.

Snakemake's process starts the server, which ends with it. ``launch.py`` is what Snakemake runs in
place of Python; without a server, it runs Python.
"""

from __future__ import annotations

import ast
import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

from convergent.running.console import end_interrupted_job

# This library, and the folder from which it is imported.
PACKAGE, LIBRARY = __name__.partition(".")[0], Path(__file__).parents[2]
# Variables that differ between jobs although no library reads them when it is imported.
OF_ONE_JOB = ("_", "OLDPWD", "PWD", "SHLVL")
# The option of Linux's prctl that names the signal which a process gets once its parent ends.
PR_SET_PDEATHSIG = 1


def start_server(scripts: str | Path) -> str | None:
    """Start a server that ends with this process.

    Parameters
    ----------
    scripts : path
        Folder of the scripts of the workflow. Their module ``_job`` is imported first.

    Returns
    -------
    str or None
        What to put before the command of each job. None on other systems than Linux, if the
        variable ``CONVERGENT_FORKS`` is 0, or if the name of the folder for temporary files is too
        long for the address of a server.
    """
    if sys.platform != "linux" or os.environ.get("CONVERGENT_FORKS") == "0":
        return None
    folder = tempfile.mkdtemp(prefix="convergent-")  # only this user may enter it
    address = f"{folder}/server"
    door = socket.socket(socket.AF_UNIX)
    try:
        door.bind(address)
    except OSError:  # Addresses may have about a hundred letters.
        shutil.rmtree(folder)
        return None
    door.listen(64)
    start = "import sys; sys.path[:0] = sys.argv[2:]; from convergent.running import forks; "
    start += "forks.route(int(sys.argv[1]))"
    server = subprocess.Popen(
        [sys.executable, "-P", "-c", start, str(door.fileno()), str(scripts), str(LIBRARY)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[door.fileno()],
        start_new_session=True,
    )  # fmt: skip
    door.close()

    def stop() -> None:
        assert server.stdin
        server.stdin.close()
        server.wait()

    atexit.register(stop)
    os.environ["CONVERGENT_FORKS"] = address
    return shlex.join([sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py"))])


def route(listening: int) -> None:
    """Pass each job on to the server of its environment, which is forked when it is first needed.

    Ends once the standard input is closed, as happens when Snakemake ends.
    """
    servers: dict[str, socket.socket] = {}
    door, events = socket.socket(fileno=listening), selectors.DefaultSelector()
    folder = Path(door.getsockname()).parent
    events.register(door, selectors.EVENT_READ)
    events.register(0, selectors.EVENT_READ)
    while all(key.fileobj is door for key, _ in events.select()):
        client, _ = door.accept()
        try:
            job, streams = receive_job(client)
        except (OSError, ValueError):  # The launcher was killed at once.
            client.close()
            continue
        variables = {of: value for of, value in job["environment"].items() if of not in OF_ONE_JOB}
        key = json.dumps(variables, sort_keys=True)
        if key not in servers:
            near, servers[key] = socket.socketpair()
            if not os.fork():
                events.close()
                for other in (door, client, *servers.values()):
                    other.close()
                close(streams)
                serve(near, job)
            near.close()
        send_job(servers[key], job, [client.fileno(), *streams])
        close(streams)
        client.close()
    shutil.rmtree(folder, ignore_errors=True)
    for server in servers.values():
        server.close()
    for _ in servers:
        os.wait()


class Fork:
    """A job that runs as a fork of this process, and the connection to its launcher.

    Parameters
    ----------
    job : dict
        Its command, folder and environment.
    launcher : socket.socket
        Gets the exit code.
    streams : list of int
        The job's standard input, output and error. They are closed here.
    """

    def __init__(self, job: dict[str, Any], launcher: socket.socket, streams: list[int]) -> None:
        self.launcher = launcher
        # The job writes the names of its modules to it at its end.
        self.imported = os.memfd_create("modules")
        self.process = get_context("fork").Process(
            target=run_job, args=(job, streams, self.imported)
        )
        self.process.start()
        self.group = self.process.pid or 0
        with suppress(OSError):  # It does this itself, though perhaps later than a signal comes.
            os.setpgid(self.group, self.group)
        close(streams)

    def pass_signal(self) -> bool:
        """Pass on a signal that the launcher got; tell whether there may be more.

        A launcher that was killed could pass on nothing.
        """
        number = self.launcher.recv(1) or bytes([signal.SIGKILL])
        with suppress(ProcessLookupError):
            os.killpg(self.group, number[0])
        return number[0] != signal.SIGKILL

    def finish(self) -> list[str]:
        """Send the exit code of a job that has ended, and return the modules that it imported."""
        self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        with suppress(OSError), self.launcher:
            self.launcher.sendall(code.to_bytes(4, "big", signed=True))
        os.lseek(self.imported, 0, os.SEEK_SET)
        with open(self.imported, encoding="utf-8") as file:
            return file.read().split()


def serve(jobs: socket.socket, first: dict[str, Any]) -> NoReturn:
    """Fork for each job of one environment, and end this process after the last one.

    Before a fork, the server imports what the job's script names and what earlier jobs have
    imported. A single job thus takes no longer than by itself, and two that start together import
    nothing twice.
    """
    # Nothing that imports leave is garbage. To look for it takes a sixth of their time.
    gc.disable()
    os.environ.clear()
    os.environ.update(first["environment"])
    os.chdir(first["folder"])
    importlib.import_module("_job")
    wanted: dict[str, None] = {}
    read: set[Path] = set()
    # The forks by what tells of them: the end of each, and its launcher.
    forks: dict[Any, Fork] = {}
    events = selectors.DefaultSelector()
    events.register(jobs, selectors.EVENT_READ)
    more = True
    while more or forks:
        for key, _ in events.select():
            fork = forks.get(key.fileobj)
            if key.fileobj is jobs:
                try:
                    job, (launcher, *streams) = receive_job(jobs)
                except (OSError, ValueError):
                    events.unregister(jobs)
                    more = False
                    continue
                with suppress(Exception):  # The job says what is wrong with its script.
                    wanted.update(dict.fromkeys(imports(Path(job["command"][1]), read)))
                import_all(wanted)
                fork = Fork(job, socket.socket(fileno=launcher), streams)
                for source in (fork.process.sentinel, fork.launcher):
                    forks[source] = fork
                    events.register(source, selectors.EVENT_READ)
            elif fork and key.fileobj is fork.launcher:
                if not fork.pass_signal():
                    del forks[fork.launcher]
                    events.unregister(fork.launcher)
            elif fork:
                for source in (fork.process.sentinel, fork.launcher):
                    if forks.pop(source, None):
                        events.unregister(source)
                wanted.update(dict.fromkeys(fork.finish()))
    os._exit(0)  # There is nothing to tidy up.


def imports(script: Path, read: set[Path]) -> Iterator[str]:
    """List the modules of others that a script imports, itself or through modules of this library.

    Parameters
    ----------
    script : Path
        All of its imports count, as it runs the functions that it defines.
    read : set of Path
        Modules of this library that were read before. They are not read again, and those that are
        read now are added. Of a module, the imports that run when it is imported count.

    Yields
    ------
    str
    """
    pending = [script]
    while pending:
        file = pending.pop()
        tree = ast.parse(file.read_bytes())
        for node in ast.walk(tree) if file == script else _run_when_imported(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
                if _is_ours(node.module):  # What it takes from there may be modules.
                    names += [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in names if not _is_ours(name))
            for path in (LIBRARY.joinpath(*name.split(".")) for name in names if _is_ours(name)):
                for module in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
                    if module not in read and module.is_file():
                        read.add(module)
                        pending.append(module)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def _run_when_imported(node: ast.AST) -> Iterator[ast.AST]:
    """List what is below a node, but for functions and what only type checkers read."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(inner, ast.If) and "TYPE_CHECKING" in ast.unparse(inner.test):
            continue
        yield inner
        yield from _run_when_imported(inner)


def import_all(names: dict[str, None]) -> None:
    """Import modules by their names, and forget these."""
    for name in names:
        # What a module needs to be imported may have been there in the other process only.
        with suppress(Exception):
            importlib.import_module(name)
    if "numba" in names:
        # It first lists what it can compile, even where it only loads what others compiled, which
        # takes half a second.
        with suppress(Exception):
            importlib.import_module("numba.core.registry").cpu_target.target_context.refresh()
    names.clear()
    # Objects that exist now are never garbage; a fork need not look at (and copy) them.
    gc.freeze()


def run_job(job: dict[str, Any], streams: list[int], imported: int) -> None:
    """Become a job, in a fork of the server, and run it.

    Its standard streams are those of its launcher. If the server has threads, which are lost in a
    fork with whatever they hold, the job starts anew.
    """
    # With a group of its own, signals reach the processes that the job has started.
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    close(streams)
    os.chdir(job["folder"])
    os.environ.update(job["environment"])
    command = job["command"]
    if threading.active_count() > 1:
        os.execv(command[0], command)
    sys.argv = command[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    before = set(sys.modules)
    gc.enable()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except KeyboardInterrupt:
        end_interrupted_job()
    finally:
        with open(imported, "w", encoding="utf-8") as file:
            file.write("\n".join(name for name in installed_modules() if name not in before))
        # Python itself does not call these in a fork. It takes nothing else apart, which would
        # take seconds with so many modules.
        atexit._run_exitfuncs()


def installed_modules() -> list[str]:
    """List the modules that this process has imported from Python or from installed packages."""
    folders = tuple(sysconfig.get_paths()[kind] for kind in ("purelib", "platlib", "stdlib"))
    origins = {
        name: getattr(getattr(module, "__spec__", None), "origin", None)
        for name, module in sys.modules.items()
    }
    return [name for name, origin in origins.items() if origin and origin.startswith(folders)]


def send_job(to: socket.socket, job: dict[str, Any], files: list[int]) -> None:
    """Send a job with open files, as :func:`receive_job` expects it."""
    text = json.dumps(job).encode()
    socket.send_fds(to, [len(text).to_bytes(4, "big")], files)
    to.sendall(text)


def receive_job(sender: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive a job (command, folder and environment) and open files.

    Raises
    ------
    OSError, ValueError
        If the connection ends before the job does.
    """
    size, files, _, _ = socket.recv_fds(sender, 4, 4, socket.MSG_WAITALL)
    text = sender.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    return json.loads(text), files


def close(files: list[int]) -> None:
    """Close files of the system."""
    for file in files:
        os.close(file)
