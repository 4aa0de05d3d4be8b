"""Files of the atlas: arrays in scripts that a page opened from the disk may load.

Each script has a single call ``receive(name, "...")`` that holds an .npz file in base64;
:func:`read` returns its arrays. The .npz file itself lies beside the script, except for
matrices, whose exact values are in the run's stores.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_arrays(
    folder: Path, name: str, arrays: Mapping[str, NDArray], *, plain: bool = True
) -> None:
    """Write arrays as ``data/<name>.js`` for the page and, if `plain`, as ``.npz`` beside it."""
    buffer = io.BytesIO()
    # In the order of C, which is the only one that the page reads.
    rows = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    np.savez_compressed(buffer, **rows)  # type: ignore[arg-type]
    path = folder / f"data/{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    if plain:
        path.with_suffix(".npz").write_bytes(buffer.getvalue())
    text = base64.b64encode(buffer.getvalue()).decode()
    path.write_text(f'receive("{name}", "{text}");\n', encoding="utf-8")


def write_description(folder: Path, name: str, contents: Mapping[str, Any]) -> None:
    """Write ``data/<name>.json``, and the same as a script for the page."""
    text = json.dumps(contents, allow_nan=False)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / f"data/{name}.json").write_text(text, encoding="utf-8")
    (folder / f"data/{name}.js").write_text(f'receive("{name}", {text});\n', encoding="utf-8")


def read(path: str | Path) -> dict[str, NDArray]:
    """Read the arrays of a script written by :func:`write_arrays`."""
    text = Path(path).read_text(encoding="utf-8").split('"')[3]
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as arrays:
        return dict(arrays)
