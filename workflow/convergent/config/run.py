"""The configuration of a run: every key, its meaning and what it may be.

Defaults are the paper's ImageNet run; ``config.yaml`` and ``presets/`` set what differs.
Nothing here imports what a job needs, so that the Snakefile reads it quickly.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from convergent import ConvergentError
from convergent.nets.alexnet import LAYERS, alexnet_sides
from convergent.nets.folders import validation_folder
from convergent.paper import BINS, PAPER_DECAYS

# Names of folders and files, which can leave neither their folder nor a file system's limit.
RunName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
NetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
Unit = Annotated[float, Field(ge=0, le=1)]


class ConfigError(ConvergentError, ValueError):
    """What is wrong with a configuration, one line per key."""


class Section(BaseModel):
    """A part of the configuration; refuses keys that it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _reads_null(cls, values: Any) -> Any:
        """Take for null what Snakemake's command line gives as a string."""
        if not isinstance(values, Mapping):
            return values
        return {key: None if value == "null" else value for key, value in values.items()}


class Net(Section):
    """One net."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Of its initial weights, the order of its images and its dropout; no two nets share one."""


def _is_resize(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list | tuple) and len(value) != 2):
        raise ValueError(f"should be a number of pixels or [height, width], got {value!r}")
    return value


Resize = Annotated[PositiveInt | tuple[PositiveInt, PositiveInt], BeforeValidator(_is_resize)]


class TrainTransform(Section):
    """Training views: resize, a margin of zeros, a crop at random, a mirror image at random."""

    resize: Resize = (256, 256)
    """Short side in pixels, or height and width."""
    shift: NonNegativeInt = 0
    """Margin of zeros around the resized image, in pixels, before the crop of `data.size`."""
    flip: bool = True
    """Whether to mirror half of the views."""


class ValidationTransform(Section):
    """Validation views, the ones that are recorded: resize, then the central crop."""

    resize: Resize = (256, 256)
    """Short side in pixels, or height and width."""


class Data(Section):
    """The images."""

    name: Literal["digits", "cifar10", "imagenet", "imagefolder", "arrays"] = "imagenet"
    """digits (in scikit-learn), cifar10 (downloaded to `root`), imagenet and imagefolder (class
    folders under root/train and root/val), arrays (an .npz of `images`, uint8, and `labels`)."""
    root: str | None = None
    """Folder of the images, or the .npz file; digits need none."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share kept for validation by digits, and by arrays that have no `validation` mask."""
    seed: NonNegativeInt = 0
    """Of the draw of that share."""
    size: PositiveInt = 227
    """Side of the square view that the net sees, in pixels."""
    mean: list[Unit] = [0.481, 0.457, 0.408]
    """Subtracted from each channel, on the scale 0 to 1; one number is grey, three are colour."""
    std: list[Annotated[float, Field(gt=0, le=1)]] = [1 / 255, 1 / 255, 1 / 255]
    """Each channel is divided by it. 1/255 leaves 8-bit values less their mean, as Caffe does;
    CaffeNet's initial weights and normalisation are made for that scale."""
    train_transform: TrainTransform = TrainTransform()
    """Of the images that nets are trained on."""
    validation_transform: ValidationTransform = ValidationTransform()
    """Of the images that nets are compared on."""

    @property
    def split(self) -> dict[str, Any]:
        """Keys that draw validation images where the data set does not bring them."""
        return {"validation_fraction": self.validation_fraction, "seed": self.seed}

    @property
    def is_folder(self) -> bool:
        """Whether the images are files in class folders."""
        return self.name in ("imagenet", "imagefolder")

    @model_validator(mode="after")
    def _agrees(self) -> Data:
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise ValueError("mean: needs as many numbers as std, one (grey) or three (colour)")
        if len(self.mean) != {"digits": 1, "cifar10": 3}.get(self.name, len(self.mean)):
            raise ValueError(f"mean: {len(self.mean)} numbers do not fit {self.name}")
        if self.name != "digits" and self.root is None:
            raise ValueError(f"root: missing; say where the {self.name} images are")
        margins = {"train_transform": self.train_transform.shift, "validation_transform": 0}
        for key, margin in margins.items():
            resize = getattr(self, key).resize
            side = resize if isinstance(resize, int) else min(resize)
            if side + 2 * margin < self.size:
                raise ValueError(f"{key}.resize: {side} pixels leave no view of size {self.size}")
        return self


class Model(Section):
    """The architecture, the same for all nets."""

    name: Literal["alexnet"] = "alexnet"
    """alexnet: the paper's, five convolutions and three full connections, no groups."""
    channels: Annotated[list[PositiveInt], Field(min_length=5, max_length=5)] = [
        96, 256, 384, 384, 256,
    ]  # fmt: skip
    """Units of conv1 to conv5."""
    fully_connected: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] = [4096, 4096]
    """Units of fc6 and fc7."""
    kernel: PositiveInt = 11
    """Side of conv1's filters, in pixels."""
    stride: PositiveInt = 4
    """Of conv1, in pixels."""
    padding: NonNegativeInt = 0
    """Of conv1, in pixels."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Probability in fc6 and fc7 while training."""
    init: Literal["caffenet", "kaiming"] = "caffenet"
    """Initial weights: caffenet for the paper's schedule, kaiming for short ones."""


class Training(Section):
    """The recipe, the same for all nets."""

    epochs: PositiveInt = 90
    """Passes over the training images."""
    batch_size: PositiveInt = 256
    """Images per step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd with momentum, or adamw."""
    learning_rate: PositiveFloat = 0.01
    """At the start; for onecycle the peak."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd; adamw keeps its own averages."""
    weight_decay: NonNegativeFloat = 5e-4
    """L2 penalty of sgd, decoupled decay of adamw."""
    schedule: Literal["step", "onecycle", "constant"] = "step"
    """step multiplies the rate by `gamma` every `step_epochs`; onecycle rises and falls once."""
    step_epochs: PositiveInt = 20
    """Epochs between two steps."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor of a step."""
    compile: bool = False
    """Whether to compile the net on a GPU: a minute at the start, faster steps after it."""
    workers: NonNegativeInt = 8
    """Processes per net that decode image files."""


class Activations(Section):
    """What is kept of every unit."""

    store: bool = True
    """Whether to keep activations on disk. Without, statistics, correlations and strongest images
    of all nets come from one job that runs them side by side; the fit of maps by SGD needs a
    store and is left out."""
    keep: bool = True
    """Whether stores stay when all that is made from them is there; without, each is removed as
    soon as its last pair is done, and made again should anything ask for it."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the activations; float16 halves the stores and holds values up to 65504. Layers for
    which it has too few digits are kept in float32."""
    images: PositiveInt | None = None
    """Number of validation images, drawn at random; all if null."""
    positions: PositiveInt | None = None
    """Random positions per image that are kept in convolutional layers, the same for all nets; all
    if null. The strongest images are then the strongest at these positions."""
    batch_size: PositiveInt = 128
    """Images per step."""


class Statistics(Section):
    """How activations are reduced."""

    blocks: Annotated[int, Field(ge=2)] = 20
    """Blocks of images whose moments are kept, for split halves and intervals; the same for all
    layers, nets and pairs. Wide layers keep neighbours merged, so that their blocks stay under 256
    MB."""
    samples: Annotated[int, Field(ge=BINS)] = 60_000
    """Random samples per layer for mutual information, the same for all nets; all if there are
    fewer."""
    binning: Literal["paper", "reference"] = "paper"
    """Bins of mutual information: 5% of all of a unit's samples each (paper), or 5% of those in
    which it is active (reference, as in the authors' code); both with one more around zero."""
    seed: NonNegativeInt = 0
    """Of every random choice made in the analysis."""


class Dask(Section):
    """The tasks that reduce activation stores."""

    scheduler: Annotated[
        str, StringConstraints(pattern=r"^(threads|processes|slurm|[a-z]+://[^\s/]+)$")
    ] = "threads"
    """threads, processes, slurm, or the address of a running scheduler of `distributed`, such as
    tcp://10.0.0.1:8786. The first two take as many workers as the job has threads; slurm submits
    `jobs` of workers for each reduction. Workers elsewhere compute on processors, not on GPUs; they
    must see the same files, and those of an address have this library on their PYTHONPATH."""
    jobs: PositiveInt = 4
    """Of slurm: jobs of workers for one reduction, each with the threads, memory and time of the
    reduction's own job."""
    partition: str | None = None
    """Of slurm: their partition; the cluster's default if null."""
    account: str | None = None
    """Of slurm: who pays; the user's default if null."""
    interface: str | None = None
    """Of slurm: network interface on which scheduler and workers listen, such as ib0; if null, the
    one that has the address of the machine's name."""

    @property
    def here(self) -> bool:
        """Whether tasks run in the job itself."""
        return self.scheduler in ("threads", "processes")


class SgdMapping(Section):
    """The paper's fit of mapping layers, beside the exact one."""

    layers: list[str] = []
    """Layers to fit for `figures.pair`, at the paper's decays, for table1; none if empty. At the
    paper's size a layer takes minutes to an hour."""
    iterations: PositiveInt = 4500
    """Steps of 32 images."""


class SparseMapping(Section):
    """Sparse maps from net to net."""

    exponents: Annotated[list[Annotated[float, Field(ge=-10, le=2)]], Field(min_length=1)] = [
        -5, -4.5, -4, -3.8, -3.6, -3.4, -3.2, -3, -2.8, -2.6, -2.4, -2.2, -2, -1.5, -1,
    ]  # fmt: skip
    """Decays to fit at, as powers of ten, besides decay 0. The paper's are -5, -4, -3, -2, -1."""
    penalty: PositiveFloat = 0.25
    """Which map of a layer is drawn and clustered: the one whose decay times the units of the
    layer is nearest. The paper's choices, 10^-2.6 in conv1 and 10^-3 in conv2, are both 0.25."""
    sgd: SgdMapping = SgdMapping()
    """The paper's fit, for comparison."""

    @property
    def decays(self) -> list[float]:
        """All decays, from 0 up."""
        return [0.0, *(10.0**exponent for exponent in sorted(set(self.exponents)))]


Clusters = PositiveInt | Literal["auto"]
Units = list[NonNegativeInt] | Literal["all"]


def _number(value: Any) -> int | None:
    """A whole number, which Snakemake's command line gives as a string; None if it is none."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if type(value) is int and value >= 0 else None


def _is_clusters(value: Any) -> Any:
    values = value.values() if isinstance(value, Mapping) else [value]
    if not all(v == "auto" or _number(v) for v in values):
        raise ValueError(f"should be a number of clusters, auto, or these by layer, got {value!r}")
    return value


def _is_pictures(value: Any) -> Any:
    if isinstance(value, Mapping):
        lists = [v for v in value.values() if v != "all"]
        if all(isinstance(v, list) and None not in map(_number, v) for v in lists):
            return value
    elif value in ("all", "none"):
        return value
    raise ValueError(
        f"should be all, none, or by layer all or a list of unit numbers, got {value!r}"
    )


class Clustering(Section):
    """Spectral clusters of both nets' units."""

    k: Annotated[Clusters | dict[str, Clusters], BeforeValidator(_is_clusters)] = {
        layer: 40 if layer == "conv1" else 100 for layer in LAYERS["alexnet"]
    }
    """Number of clusters, of all layers or by layer; auto is where the eigenvalues jump, also for
    a layer that neither config.yaml nor an overlay names."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Correlations at or below it make no edge (the paper's tau)."""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.025
    """Clusters of more than this share of both nets' units are split until none is."""


class Pictures(Section):
    """What units see."""

    pictures: Annotated[
        Literal["all", "none"] | dict[str, Units], BeforeValidator(_is_pictures)
    ] = "all"
    """Units that get image patches and deconvolutions: all, none, or by layer all or a list of
    numbers, none in layers that are not named. At the paper's size those of fc6 and fc7 take 11 GB
    a net each."""


class Figures(Section):
    """What the figures show."""

    pair: str | None = None
    """Pair that a figure asked for by its bare name shows, such as net1-net2; null: the first."""
    layer: str = "conv1"
    """Layer of fig1, fig3, fig6, fig7, figS6 and figS11."""
    second_layer: str | None = None
    """Layer of figS7, figS8 and figS12, the paper's conv2; null: the one after `layer`."""


class Config(Section):
    """A whole run."""

    run: RunName
    """Name of the run; its results go to `results`/<run>/."""
    nets: dict[NetName, Net]
    """The nets by name, in order; every two of them make a pair. In an overlay, null leaves a
    net of config.yaml out."""
    layers: list[str] = LAYERS["alexnet"]
    """Layers to compare. Results have them in the net's order, however they are listed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train and record; auto takes a GPU where there is one."""
    results: Annotated[str, StringConstraints(min_length=1)] = "results"
    """Folder of all runs' results, on any file system; relative to where Snakemake runs."""
    accept_changes: bool = False
    """Whether a run may go on with other package versions, another kind of device or other images
    than it began with; its provenance.jsonl then says so. To be given once, on the command line."""
    data: Data
    """The images."""
    model: Model = Model()
    """The architecture."""
    training: Training = Training()
    """The recipe."""
    activations: Activations = Activations()
    """The activations."""
    statistics: Statistics = Statistics()
    """The reductions."""
    dask: Dask = Dask()
    """The reductions' tasks."""
    mapping: SparseMapping = SparseMapping()
    """The mapping layers."""
    clustering: Clustering = Clustering()
    """The spectral clusters."""
    units: Pictures = Pictures()
    """The pictures of units."""
    figures: Figures = Figures()
    """The figures."""

    @property
    def pairs(self) -> list[str]:
        """Names of all pairs of nets, in config order."""
        return [f"{a}-{b}" for a, b in itertools.combinations(self.nets, 2)]

    @property
    def pair(self) -> str:
        """The pair that bare figure names draw."""
        return self.figures.pair or self.pairs[0]

    @property
    def widths(self) -> dict[str, int]:
        """Number of units of each layer that is compared."""
        widths = [*self.model.channels, *self.model.fully_connected]
        known = dict(zip(LAYERS[self.model.name], widths, strict=True))
        return {layer: known[layer] for layer in self.layers}

    @property
    def sgd_layers(self) -> list[str]:
        """Layers whose maps are fitted by SGD too: none without a store."""
        asked = self.mapping.sgd.layers if self.activations.store else []
        return [layer for layer in self.layers if layer in asked]

    @property
    def folder(self) -> str:
        """Where the results go."""
        return str(Path(self.results).expanduser() / self.run)

    @property
    def origin(self) -> dict[str, Any]:
        """All settings that decide what any store of the run holds.

        The origin of a store is a part of it: the seeds of its nets and the keys that its rule
        names.
        """
        sgd = self.mapping.sgd.model_dump(mode="json") | {"decays": self.sgd_decays}
        return {
            "nets": {name: net.seed for name, net in self.nets.items()},
            "layers": self.layers,
            "data": self.data.model_dump(mode="json"),
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json", exclude={"workers"}),
            "activations": self.activations.model_dump(
                mode="json", include={"dtype", "images", "positions"}
            ),
            "statistics": self.statistics.model_dump(mode="json"),
            "mapping": {
                "decays": self.mapping.decays,
                "penalty": self.mapping.penalty,
                "sgd": sgd,
            },
            "units": {"pictures": self.pictures},
        }

    @property
    def sgd_decays(self) -> list[float]:
        """Decays that maps are fitted at by SGD: the paper's, of those asked for."""
        return [decay for decay in self.mapping.decays if decay in PAPER_DECAYS]

    @property
    def clusters(self) -> dict[str, int | str]:
        """Number of spectral clusters of each layer, or auto."""
        k = self.clustering.k
        return {layer: k.get(layer, "auto") if isinstance(k, dict) else k for layer in self.layers}

    @property
    def pictures(self) -> dict[str, list[int] | None]:
        """Units of each layer that get pictures, None where all do."""
        chosen = self.units.pictures
        if not isinstance(chosen, dict):
            chosen = dict.fromkeys(self.layers if chosen == "all" else [], "all")
        return {
            layer: None if chosen[layer] == "all" else chosen[layer]
            for layer in self.layers
            if layer in chosen
        }

    @property
    def second_layer(self) -> str:
        """The layer that figS7 and figS8 show."""
        after = self.layers[self.layers.index(self.figures.layer) + 1 :]
        return self.figures.second_layer or [*after, self.figures.layer][0]

    @property
    def positions(self) -> dict[str, int]:
        """Number of positions of each layer that are recorded of each image."""
        model, most = self.model, self.activations.positions
        sides = alexnet_sides(self.data.size, model.kernel, model.stride, model.padding)[:5]
        areas = dict(zip(LAYERS[model.name], [s * s for s in sides], strict=False))
        areas = {layer: areas.get(layer, 1) for layer in self.layers}
        return {layer: min(area, most or area) for layer, area in areas.items()}

    @property
    def values_per_image(self) -> int:
        """Number of activations that are recorded of each image."""
        return sum(self.positions[layer] * units for layer, units in self.widths.items())

    @field_validator("nets", mode="before")
    @classmethod
    def _drops_null(cls, nets: Any) -> Any:
        """Leave out the nets that an overlay sets to null."""
        if not isinstance(nets, Mapping):
            return nets
        return {name: net for name, net in nets.items() if net not in (None, "null")}

    @field_validator("layers")
    @classmethod
    def _orders(cls, layers: list[str]) -> list[str]:
        """Bring layers into the order of the net; those that no net has come last."""
        known = list(itertools.chain(*LAYERS.values()))
        return sorted(layers, key=lambda name: known.index(name) if name in known else len(known))

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        if len(self.nets) < 2:
            raise ValueError(f"nets: at least two are needed to compare, got {len(self.nets)}")
        owners: dict[int, str] = {}
        for name, net in self.nets.items():
            if net.seed in owners:
                raise ValueError(
                    f"nets.{name}.seed: {net.seed} is the seed of {owners[net.seed]} too; "
                    "give each net its own"
                )
            owners[net.seed] = name
        model = self.model
        alexnet_sides(self.data.size, model.kernel, model.stride, model.padding)
        known = LAYERS[model.name]
        for layer in [*self.layers, self.figures.layer]:
            if layer not in known:
                key = "layers" if layer in self.layers else "figures.layer"
                raise ValueError(
                    f"{key}: {model.name} has no layer {layer!r}; it has {', '.join(known)}"
                )
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: name at least one, and each once")
        if self.figures.layer not in self.layers:
            raise ValueError(f"figures.layer: {self.figures.layer!r} is not among layers")
        if self.second_layer not in self.layers:
            raise ValueError(f"figures.second_layer: {self.second_layer!r} is not among layers")
        for layer in self.mapping.sgd.layers:
            if layer not in self.layers:
                raise ValueError(f"mapping.sgd.layers: {layer!r} is not among layers")
        if isinstance(self.clustering.k, dict):
            for layer in self.clustering.k:
                if layer not in known:
                    raise ValueError(
                        f"clustering.k: {model.name} has no layer {layer!r}; it has "
                        f"{', '.join(known)}"
                    )
        if isinstance(self.units.pictures, dict):
            for layer, chosen in self.units.pictures.items():
                if layer not in known:
                    raise ValueError(
                        f"units.pictures: {model.name} has no layer {layer!r}; it has "
                        f"{', '.join(known)}"
                    )
                if (
                    chosen != "all"
                    and layer in self.layers
                    and max(chosen, default=0) >= (self.widths[layer])
                ):
                    raise ValueError(
                        f"units.pictures.{layer}: there is no unit {max(chosen)} among "
                        f"{self.widths[layer]}, which count from 0"
                    )
        for layer, units in self.widths.items():
            k, most = self.clusters[layer], 2 * self.clustering.alpha * units
            if k != "auto" and k > 2 * units:
                raise ValueError(
                    f"clustering.k: {k} clusters of {layer}, where both nets together have "
                    f"{2 * units} units"
                )
            if most < 1:
                raise ValueError(
                    f"clustering.alpha: leaves of at most {most:.2g} units of {layer} would hold "
                    f"none; take at least {1 / (2 * units):.2g}"
                )
        if self.pair not in self.pairs:
            raise ValueError(
                f"figures.pair: {self.figures.pair!r} is none of {', '.join(self.pairs)}"
            )
        if (self.activations.images or self.statistics.blocks) < self.statistics.blocks:
            raise ValueError(
                f"statistics.blocks: {self.statistics.blocks} blocks need as many images, "
                f"activations.images is {self.activations.images}"
            )
        return self


def load(values: Mapping[str, Any]) -> Config:
    """Check a configuration.

    Raises
    ------
    ConfigError
        One line per fault, each with the path of its key and what would be right.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [_explain(fault) for fault in error.errors()]
        raise ConfigError("the configuration is not valid:\n  " + "\n  ".join(lines)) from None


def check_data(config: Config) -> None:
    """Check, without reading images, that the data are there and enough for the blocks.

    Raises
    ------
    ConfigError
        Names the key, what was looked for and what would be right.
    """
    data, blocks, images = config.data, config.statistics.blocks, config.activations.images or 0
    if data.is_folder:
        root = Path(data.root)
        if not root.is_dir():
            raise ConfigError(f"data.root: there is no folder {root}")
        validation = validation_folder(root)
        for folder in (root / "train", validation):
            if not folder.is_dir():
                raise ConfigError(
                    f"data.root: {folder} is missing; expected class folders under "
                    f"{root}/train and {root}/val (or test)"
                )
        files = (f for entry in os.scandir(validation) if entry.is_dir() for f in os.scandir(entry))
        count = sum(1 for _ in itertools.islice(files, max(blocks, images, BINS)))
    else:
        count = count_images(data)[1]
    if count < blocks:
        raise ConfigError(
            f"statistics.blocks: {blocks} blocks need as many validation images, {data.name} has "
            f"{count}; ask for fewer blocks"
        )
    recorded = min(images or count, count)
    for layer, positions in config.positions.items():
        if recorded * positions < BINS:
            key = "activations.images" if images else "data"
            raise ConfigError(
                f"{key}: {recorded} validation images give {recorded * positions} samples of "
                f"{layer}, fewer than the {BINS} bins of mutual information"
            )
    if count < images:
        raise ConfigError(f"activations.images: {images} asked for, {data.name} has {count}")


def count_images(data: Data) -> tuple[int, int]:
    """Number of training and of validation images, without reading any.

    Of folders about: classes times the images of the fullest of the first few, so that a
    million of files need not be listed.

    Raises
    ------
    ConfigError
        If the file of arrays cannot be read.
    """
    if data.is_folder:
        root = Path(data.root)
        return tuple(_about(folder) for folder in (root / "train", validation_folder(root)))
    if data.name == "cifar10":
        return 50_000, 10_000
    labels, mask = range(1797), None
    if data.name == "arrays":
        import numpy as np

        if not Path(data.root).is_file():
            raise ConfigError(f"data.root: there is no file {data.root}")
        try:
            with np.load(data.root, allow_pickle=False) as file:
                labels, mask = file["labels"], file.get("validation")
                mask = None if mask is None else mask.astype(bool)
                len(labels)
        # Whatever a damaged archive, or an array of anything, raises.
        except Exception as error:
            raise ConfigError(
                f"data.root: {data.root} is not an .npz file with images and labels ({error})"
            ) from error
    share = math.ceil(len(labels) * data.validation_fraction)
    validation = share if mask is None else int(mask.sum())
    return len(labels) - validation, validation


def _about(folder: Path) -> int:
    classes = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    return len(classes) * max((len(os.listdir(path)) for path in classes[:5]), default=0)


def image_sources(config: Config) -> list[str]:
    """Files and folders whose change makes the images another data set."""
    data = config.data
    if data.name == "arrays":
        return [data.root]
    if data.is_folder:
        root = Path(data.root)
        splits = (root / "train", validation_folder(root))
        return sorted(e.path for split in splits for e in os.scandir(split) if e.is_dir())
    return []


def schema() -> str:
    """The JSON schema of the configuration, as ``workflow/schemas/config.schema.json`` has it."""
    values = {
        "$schema": "https://json-schema.org/draft/2020-12/schema"
    } | Config.model_json_schema()
    # In an overlay, null leaves a net out.
    nets = values["properties"]["nets"]["patternProperties"]
    for pattern, net in nets.items():
        nets[pattern] = {"anyOf": [net, {"type": "null"}]}
    return json.dumps(values, indent=2) + "\n"


def documentation() -> str:
    """A table of all keys in Markdown, as ``docs/configuration.md`` has it."""
    lines = [
        "# Configuration",
        "",
        "Made from `workflow/convergent/config` by `python -m convergent.config`; defaults are the "
        "paper's ImageNet run. Unknown keys and bad values are refused before anything runs.",
        "",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *_rows(Config, "")]) + "\n"


def _rows(section: type[Section], prefix: str) -> list[str]:
    rows = []
    properties = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            rows += _rows(inner, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        meaning = " ".join(field.description.split())
        rows.append(f"| `{prefix}{name}` | {_kind(properties[name])} | {default} | {meaning} |")
        if name == "nets":
            rows += _rows(Net, "nets.<name>.")
    return rows


def _kind(schema: Mapping[str, Any]) -> str:
    """A type of the JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(schema["enum"])
    if isinstance(schema.get("additionalProperties"), dict):
        return f"by layer ({_kind(schema['additionalProperties'])})"
    if schema["type"] == "array":
        entries = schema.get("items") or schema["prefixItems"][0]
        least, most = schema.get("minItems"), schema.get("maxItems")
        return f"list of {f'{least} ' if least and least == most else ''}{_kind(entries)}"
    return schema.get("const") or schema["type"]


def _explain(fault: Mapping[str, Any]) -> str:
    """One line for one of Pydantic's faults."""
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        section: Any = Config
        for part in fault["loc"][:-1]:
            section = Net if section is dict else section.model_fields[part].annotation
            section = dict if part == "nets" else section
        return f"{place}: no such key; there are {', '.join(section.model_fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        # A check of a whole section says first which key it is about.
        separator = "." if message.split()[0].endswith(":") else ": "
        return f"{place}{separator}{message}" if place else message
    if fault["loc"][-1] == "[key]":
        return f"{place.removesuffix('.[key]')}: not a name; {message}"
    got = "" if fault["type"] == "missing" else f", got {fault['input']!r}"
    return f"{place}: {message}{got}"
