"""A Slurm of one node on this machine: daemons, keys and ports of its own, gone afterwards."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
# Where commands of Slurm look when no variable tells them; Snakemake strips those.
SYSTEM = Path("/etc/slurm")
LINKS = [SYSTEM / name for name in ("slurm.conf", "gres.conf")]
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=26917
SlurmdPort=26918
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
MinJobAge=86400
KillWait=2
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:2
PartitionName=main Nodes={host} Default=YES
"""


def missing():
    """Why there can be no such cluster here, or nothing."""
    if os.geteuid() != 0:
        return "starting Slurm's daemons needs root"
    absent = [name for name in DAEMONS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: slurm-wlm munge)"
    configuration = SYSTEM / "slurm.conf"
    if configuration.is_symlink() and not _is_running(configuration.resolve().parent):
        for link in LINKS:
            link.unlink(missing_ok=True)  # of tests that were killed
    return f"there is a {configuration}, of a real cluster" if configuration.exists() else ""


def _is_running(folder):
    """Whether the process that made a test's cluster is still there."""
    owner = folder / "owner"
    return not owner.exists() or Path("/proc", owner.read_text(encoding="utf-8")).exists()


@contextmanager
def cluster():
    """A cluster of eight pretended cores and two pretended GPUs, while the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    folder.chmod(0o755)
    # Character devices that are no GPUs: Slurm hands them out, nobody opens them.
    for number in range(2):
        os.mknod(folder / f"gpu{number}", 0o600 | 0o020000, os.makedev(1, 3))
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(host=host, folder=folder), encoding="utf-8"
    )
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n", encoding="utf-8")
    (folder / "owner").write_text(str(os.getpid()), encoding="utf-8")
    SYSTEM.mkdir(exist_ok=True)
    daemons = []

    def start(*command):
        # Ends with this process, however that ends.
        command = ("setpriv", "--pdeathsig", "TERM", *command)
        with open(folder / f"{command[3]}.out", "w", encoding="utf-8") as log:
            daemons.append(
                subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            )

    try:
        for link in LINKS:
            link.symlink_to(folder / link.name)
        start(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            *(f"--{name}={folder}/munge.{name}" for name in ("socket", "seed-file")),
            *(f"--{name}={folder}/munge.{name}" for name in ("log-file", "pid-file")),
        )
        wait(lambda: (folder / "munge.socket").exists(), folder)
        start("slurmctld", "-D", "-c")
        start("slurmd", "-D")
        wait(lambda: ask("sinfo", "-ho", "%T") == "idle", folder)
        yield folder
    finally:
        subprocess.run(["scancel", "-u", "root"], capture_output=True, timeout=30)
        for _ in range(100):
            if not ask("squeue", "-h"):
                break
            time.sleep(0.1)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        for link in LINKS:
            link.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def ask(*command):
    """What a command of Slurm prints."""
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()


def wait(ready, folder):
    """Until `ready`, or fail with what the daemons said."""
    for _ in range(300):
        if ready():
            return
        time.sleep(0.1)
    logs = "\n".join(
        path.read_text(encoding="utf-8")[-2000:] for path in sorted(folder.glob("*.[lo][ou][gt]"))
    )
    raise RuntimeError(f"Slurm did not start:\n{logs}")
