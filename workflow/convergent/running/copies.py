"""Results that were copied without the times at which they were made."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode
from contextlib import suppress
from pathlib import Path

# Snakemake reads the time of a folder from this file in it.
TIME_OF_FOLDER = ".snakemake_timestamp"
# Difference in seconds up to which two times are the same on any file system.
ROUNDING = 2


def set_back_times(records: str | Path, folder: str | Path) -> int:
    """Give the results of a run the times again at which they were made, if all have lost them.

    ``cp -r`` gives files the time of the copy, in the order in which they are copied. Snakemake
    would run jobs again whose inputs are now newer than their outputs.

    Parameters
    ----------
    records : path
        Snakemake's records of its outputs, ``.snakemake/metadata``.
    folder : path
        Folder of the run.

    Returns
    -------
    int
        Number of results whose times were set back. 0 if any still has the time that is recorded.
    """
    times: dict[Path, float] = {}
    for record in sorted(path for path in Path(records).rglob("*") if path.is_file()):
        parts = record.relative_to(records).parts
        # Snakemake divides long names among folders that begin with "@".
        with suppress(ValueError):
            name = urlsafe_b64decode("".join(part.removeprefix("@") for part in parts)).decode()
            result = Path(name)
            if result.is_dir():
                result /= TIME_OF_FOLDER
            if not result.is_relative_to(folder) or not result.exists():
                continue
            made = json.loads(record.read_text(encoding="utf-8")).get("endtime")
            if made is None:
                continue
            if abs(result.stat().st_mtime - made) <= ROUNDING:
                return 0
            times[result] = made
    for result, made in times.items():
        os.utime(result, (made, made))
    return len(times)
