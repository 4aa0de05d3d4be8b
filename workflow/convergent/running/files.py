"""Files that are either whole or absent, locks, and errors for access that the system refuses."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convergent import ConvergentError

logger = logging.getLogger(__name__)

# The system's refusals: a full disk or quota, no permission, a read-only disk.
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class ReadingError(ConvergentError, OSError):
    """A file that the system refused to read; the message names its path and the cause."""


class WritingError(ConvergentError, OSError):
    """A result that could not be written; the message names its path and the cause."""


class DiskFullError(WritingError):
    """A result that its disk could not hold."""


class SupersededError(ConvergentError, RuntimeError):
    """A process whose work a newer one has taken over."""


def digest(*parts: object) -> str:
    """Return a short hash of values by their `repr`, to name a file that depends on them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@contextmanager
def file_lock(path: str | Path, *, newest_wins: bool = False) -> Iterator[None]:
    """Hold a lock while the block runs; wait as long as another process holds it.

    The system frees the lock of a process that was killed. On a file system without locks, the
    block runs at once.

    Parameters
    ----------
    path : path
        The lock file, which serves no other purpose.
    newest_wins : bool
        Rule that of several waiting processes only the one that came last may go on.

    Raises
    ------
    SupersededError
        If `newest_wins` and another process has come since.
    """
    ticket = uuid.uuid4().hex.encode()
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if newest_wins:
            # All tickets have one length, so that the last of several writes stands whole.
            os.pwrite(lock, ticket, 0)
        try:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                logger.warning("%s: waiting for the process that holds this lock", path)
                fcntl.lockf(lock, fcntl.LOCK_EX)
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s)", path, error)
        if newest_wins and os.pread(lock, len(ticket), 0) != ticket:
            raise SupersededError(f"{path}: a newer process has taken over the work of this one")
        yield
    finally:
        os.close(lock)


@contextmanager
def writing(path: str | Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a scratch path beside `path` that takes its name when the block succeeds.

    Files and directories are handled alike. If the block fails, `path` stays as it was and the
    scratch path is removed; a scratch path that a killed run left behind is overwritten. An old
    directory at `path` is set aside until the new one has its name: if the process is killed in
    between, the next process that writes or opens `path` brings the old directory back.

    Parameters
    ----------
    path : path
    shared : bool
        True if several processes may write the file at once, as a cache; the last of them stands.

    Raises
    ------
    DiskFullError
        If the disk fills.
    WritingError
        If there is no permission to write, or the disk is read-only.
    """
    path = Path(path)
    own = f".{uuid.uuid4().hex}" if shared else ""
    scratch = path.with_name(f".{path.stem}{own}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(scratch)
        _settle(path, scratch)
        try:
            yield scratch
            _replace(scratch, path)
        finally:
            _remove(scratch)
            _settle(path, scratch)
    except Exception as error:
        refusal = _refusal(path, error)
        if refusal is None:
            raise
        raise refusal from error


def append(path: str | Path, text: str) -> None:
    """Append text to a file by one write, so that several processes may do so at once.

    Raises
    ------
    DiskFullError
        If the disk fills.
    WritingError
        If there is no permission to write, or the disk is read-only.
    """
    path, data = Path(path), text.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if os.write(file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)
    except OSError as error:
        refusal = _refusal(path, error)
        if refusal is None:
            raise
        raise refusal from error


def error_number(error: BaseException) -> int | None:
    """Return the system's number of an error; zarrs gives it only in the text of the message."""
    words = re.search(r"\(os error (\d+)\)", str(error))
    return int(words[1]) if words else getattr(error, "errno", None)


def _refusal(path: Path, error: Exception) -> WritingError | None:
    """Return the error to raise if the system refused to write `path`, else None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ReadingError):
            return None
        number = error_number(cause)
        file = getattr(cause, "filename", None)
        if number in FULL:
            free = shutil.disk_usage(path.parent).free
            return DiskFullError(
                f"{path}: its disk is full, {free / 1e6:.0f} MB are free; free some space, or keep "
                "the results on another disk"
            )
        if number in REFUSED and (file is None or Path(file).is_relative_to(path.parent)):
            return WritingError(
                f"{path}: cannot be written ({cause}); give yourself permission to write there, or "
                "keep the results in another folder"
            )
        cause = cause.__cause__ or cause.__context__
    return None


def set_aside(path: Path) -> Path:
    """Return the path where an old directory waits until the new one has its name."""
    return path.with_name(f".{path.stem}.old{path.suffix}")


def _replace(scratch: Path, path: Path) -> None:
    """Give a file or directory its final name; an old directory of that name is set aside."""
    while True:
        if scratch.is_dir() and exists(path):
            os.replace(path, set_aside(path))
        try:
            return os.replace(scratch, path)
        except OSError as error:
            # A process that opened the store meanwhile has brought the old one back.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _settle(path: Path, scratch: Path) -> None:
    """Bring back a directory that was set aside, or remove it if the new one has its name."""
    aside = set_aside(path)
    if not exists(aside):
        return
    if not exists(path):
        os.replace(aside, path)
    else:
        # Renamed first: a kill may leave half of it, which must not be brought back.
        os.replace(aside, scratch)
        _remove(scratch)


def exists(path: Path) -> bool:
    """Return whether there is anything at a path, even a broken link."""
    return os.path.lexists(path)


def _remove(path: Path) -> None:
    """Remove a file or directory if it is there."""
    if path.is_dir() and not path.is_symlink():
        # After an error, threads of zarrs may go on writing for a moment.
        for _ in range(100):
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
            time.sleep(0.02)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
