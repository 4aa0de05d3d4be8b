"""Trainings that another run has finished, found by the key of their checkpoints."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import torch

from convergent.running.files import writing

logger = logging.getLogger(__name__)


def take_finished(checkpoints: str | Path, key: str, epochs: int) -> Path | None:
    """Bring the checkpoint and the snapshots of a finished training here, if any run has one.

    The key names all that determines the weights, so that a checkpoint with this key is what this
    training would end with, whichever net of whichever run it belongs to. A training then resumes
    after its last epoch. Nothing is taken if there is a checkpoint here already. A checkpoint of
    another run that is unfinished, or cannot be read, is passed over.

    Parameters
    ----------
    checkpoints : path
        Folder of a net's checkpoints, ``<results>/<run>/nets/<net>/checkpoints``. Others are looked
        for below the same ``<results>``.
    key : str
        Key of :func:`convergent.nets.recipe.checkpoint_key`.
    epochs : int
        Number of epochs of a finished training.

    Returns
    -------
    path or None
        The checkpoint that was taken.
    """
    checkpoints = Path(checkpoints)
    own = checkpoints / f"{key}.pt"
    if own.exists():
        return None
    results = checkpoints.absolute().parents[3]
    for found in sorted(results.glob(f"*/nets/*/checkpoints/{key}.pt")):
        if not _is_finished(found, epochs):
            continue
        for kept in sorted((found.parent / key).glob("[0-9]*.pt")):
            _bring(kept, checkpoints / key / kept.name)
        # Last, since with it the training is finished here, too.
        _bring(found, own)
        logger.info("the training is finished in %s, and its weights are taken from there", found)
        return found
    return None


def _is_finished(checkpoint: Path, epochs: int) -> bool:
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return len(state["history"]) == epochs
    except Exception as error:  # a damaged file may raise anything
        logger.warning("%s is passed over, as it cannot be read (%s)", checkpoint, error)
        return False


def _bring(source: Path, target: Path) -> None:
    """Link a file, which is only ever replaced as a whole, or copy it to another file system."""
    if target.exists():
        return
    with writing(target) as path:
        try:
            os.link(source, path)
        except OSError:  # a file system without links
            shutil.copyfile(source, path)
