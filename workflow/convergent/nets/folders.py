"""Location of the splits of an image folder."""

from __future__ import annotations

from pathlib import Path


def validation_folder(root: Path) -> Path:
    """Return ``val/`` under `root`, or ``test/`` if only that exists."""
    return next((root / name for name in ("val", "test") if (root / name).is_dir()), root / "val")


def compared_folder(root: Path) -> Path:
    """Return the folder of images without classes: ``val/``, ``test/``, or else `root` itself."""
    folder = validation_folder(root)
    return folder if folder.is_dir() else root
