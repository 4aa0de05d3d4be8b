"""Where the images of a folder of class folders lie."""

from __future__ import annotations

from pathlib import Path


def validation_folder(root: Path) -> Path:
    """``val/`` under `root`, or else ``test/``."""
    return next((root / name for name in ("val", "test") if (root / name).is_dir()), root / "val")
