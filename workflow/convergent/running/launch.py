"""Run one job: as a fork of a process that has its libraries loaded, or else by itself.

``python -I -S launch.py PYTHON SCRIPT`` runs ``PYTHON SCRIPT``. It asks the server of
:mod:`convergent.running.forks` to fork, waits until the job has ended, and ends as it did. This
process thus stands for the job: a signal that it gets reaches the job, and if it is killed, so is
the job. It imports nothing but small modules of Python, since it runs once for each job.
"""

import contextlib
import json
import os
import signal
import socket
import sys


def ask(address, command):
    """Let a server at `address` run `command`; return its exit code, or None without a server.

    The code is negative if a signal killed the job, as for a :class:`subprocess.Popen`.
    """
    with socket.socket(socket.AF_UNIX) as server:
        # Of what the environment holds, nothing is lost on the way.
        job = {"command": command, "folder": os.getcwd(), "environment": dict(os.environ)}
        try:
            server.connect(address)
        except OSError:
            return None
        request = json.dumps(job).encode()
        socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(request)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: server.sendall(bytes([number])))
        code = server.recv(4)
        if not code:
            sys.exit("the process that this job was a fork of was killed")
        return int.from_bytes(code, "big", signed=True)


if __name__ == "__main__":
    code = ask(os.environ.pop("CONVERGENT_FORKS"), sys.argv[1:])
    if code is None:
        os.execv(sys.argv[1], sys.argv[1:])
    if code < 0:  # It was killed.
        with contextlib.suppress(OSError):  # A signal that has no other effect needs no default.
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
