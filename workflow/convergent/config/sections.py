"""The sections of the configuration: every key, its meaning and its allowed values.

Defaults are the paper's ImageNet run; ``config.yaml`` and ``presets/`` set what differs.
Nothing here imports a slow library, so that the Snakefile is read quickly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    Tag,
    model_validator,
)

from convergent.nets.architectures import ARCHITECTURES, DEFAULT
from convergent.nets.sources import parse
from convergent.paper import BINS, PAPER_CLUSTERS
from convergent.running.sections import Section

# Names that are safe as names of folders and files, and short enough for any file system.
RunName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
NetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
GroupName = NetName
# Names of groups of a store.
LayerName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.]*$", max_length=128)
]
Unit = Annotated[float, Field(ge=0, le=1)]


class Place(Section):
    """A point of a net's graph whose output is recorded, and how the output is read."""

    place: str
    """Name of a module or an operation, as `convergent layers` lists them."""
    unit_axis: int | None = None
    """Axis of the units in the output, where it cannot be inferred from the net; axis 0 counts
    images."""
    skip_tokens: NonNegativeInt = 0
    """Number of leading tokens that are left out, such as 1 for a class token."""
    map: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width of the map that tokens form; positions are then compared with those of
    convolutional layers."""
    grid: Literal["mean"] | tuple[PositiveInt, PositiveInt] | None = None
    """Height and width to which maps are brought by adaptive average pooling, or mean: the mean
    over all positions. Needed where the maps of two nets differ."""


def _complete_places(layers: Any) -> Any:
    """Write places that are given by their names alone as mappings."""
    if not isinstance(layers, Mapping):
        return layers
    return {k: {"place": v} if isinstance(v, str) else v for k, v in layers.items()}


# Tags of the two forms of `layers`: names of places, or names of layers with their places.
LAYER_FORMS = ("list of layers", "places of layers")
Layers = Annotated[
    Annotated[list[LayerName], Tag(LAYER_FORMS[0])]
    | Annotated[dict[LayerName, Place | None], Tag(LAYER_FORMS[1])],
    Discriminator(lambda layers: LAYER_FORMS[isinstance(layers, Mapping)]),
    BeforeValidator(_complete_places),
]


class Net(Section):
    """One net: trained from a seed, untrained, a snapshot of another's training, or brought."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of initial weights, order of images and dropout, for nets without `weights` and `of`."""
    epochs: NonNegativeInt | None = None
    """Passes over the training images, in place of `training.epochs`; 0 leaves the net
    untrained."""
    model: dict[str, Any] | str | None = None
    """Keys of `model` that differ for this net, or only its name: an architecture,
    `path.py:function`, `torchvision:name` or `timm:name`."""
    training: dict[str, Any] | None = None
    """Keys of `training` that differ for this net."""
    data: dict[str, Any] | None = None
    """Keys of `data` that differ for this net: `size`, `mean`, `std`, the transforms and `subset`.
    All nets are compared on the same images."""
    of: str | None = None
    """Name of the net of whose training this net is a snapshot."""
    epoch: NonNegativeFloat | None = None
    """Epoch of the snapshot, one of `training.snapshots`."""
    weights: str | None = None
    """File of trained weights (.pt, .pth, .th or .safetensors), relative to the configuration file.
    It is read without running code that it may contain."""
    state: str | None = None
    """Entry of the file that holds the weights, such as state_dict; the file itself if null."""
    prefix: str | None = None
    """Beginning of all names of weights that is left out, such as `module.`."""
    classes: list[Annotated[int, Field(ge=-1)]] | None = None
    """Label in this run's data of each output of the net, -1 for none; null if both are in the
    same order. Only the accuracy depends on it."""
    layers: Layers | None = None
    """Layers of this net and their places, in addition to or in place of those of `layers`; null
    leaves one out."""
    group: GroupName | None = None
    """Group of the net, for `pairs`, figures and tables."""
    role: Literal["subject", "control", "snapshot"] | None = None
    """Role of the net. By default untrained nets are controls, snapshots are snapshots and all
    others are subjects, to which `pairs: all` and averages over nets refer."""


def _check_resize(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list | tuple) and len(value) != 2):
        raise ValueError(f"should be a number of pixels or [height, width], got {value!r}")
    return value


Resize = Annotated[PositiveInt | tuple[PositiveInt, PositiveInt], BeforeValidator(_check_resize)]


class TrainTransform(Section):
    """Training views: resized, padded with zeros, cropped at random and mirrored at random."""

    resize: Resize = (256, 256)
    """Short side in pixels, or height and width."""
    shift: NonNegativeInt = 0
    """Margin of zeros around the resized image, in pixels, before the crop of `data.size`."""
    flip: bool = True
    """Mirroring of half of the views, drawn at random."""


class ValidationTransform(Section):
    """Validation views, which are also recorded: resized, then cropped at the centre."""

    resize: Resize = (256, 256)
    """Short side in pixels, or height and width."""


class Subset(Section):
    """A part of the training images: one of `classes`, `fraction` and `half`."""

    classes: Annotated[list[int | str], Field(min_length=1)] | None = None
    """Classes to train on, by name or by label (from 0). The net keeps an output for each class of
    the data."""
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the images of each class, drawn with `seed`; at least one image."""
    half: Annotated[int, Field(ge=0, le=1)] | None = None
    """Half of the images of each class, drawn with `seed`; 0 and 1 have no image in common."""
    seed: NonNegativeInt = 0
    """Seed of the draw; nets with the same one get the same images."""

    @model_validator(mode="after")
    def _check(self) -> Subset:
        given = [k for k in ("classes", "fraction", "half") if getattr(self, k) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"should have one of classes, fraction and half, got {found}")
        return self


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Strengths = Annotated[list[PositiveFloat], BeforeValidator(_as_list)]


class Probe(Section):
    """Validation images in another form; a number, or a list of numbers that make a probe each."""

    noise: Strengths | None = None
    """Standard deviation of Gaussian noise, on the scale 0 to 1."""
    rotate: Strengths | None = None
    """Degrees by which images are rotated, counterclockwise."""
    blur: Strengths | None = None
    """Standard deviation of a Gaussian blur, in pixels."""
    contrast: Strengths | None = None
    """Share of its distance to the mean of its image that each pixel loses; 1 leaves none."""
    classes: Annotated[list[int | str], Field(min_length=1)] | None = None
    """Classes, by name or by label (from 0), to whose images the probe is limited, such as those
    that nets were not trained on."""
    seed: NonNegativeInt = 0
    """Seed of the noise."""

    @property
    def changes(self) -> dict[str, list[float]]:
        """Strengths of the changes that are asked for."""
        names = ("noise", "rotate", "blur", "contrast")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @model_validator(mode="after")
    def _check(self) -> Probe:
        if len(self.changes) > 1 or not (self.changes or self.classes):
            given = " and ".join(self.changes) or "none"
            raise ValueError(
                f"should have one of noise, rotate, blur and contrast, or classes, got {given}"
            )
        if any(strength > 1 for strength in self.changes.get("contrast", [])):
            raise ValueError("contrast: should be at most 1")
        return self


class Data(Section):
    """The images."""

    name: Literal["digits", "mnist", "cifar10", "imagenet", "imagefolder", "arrays"] = "imagenet"
    """Data set: digits (in scikit-learn), mnist (5,000 of its images, with the extra mnist),
    cifar10 (downloaded to `root`), imagenet and imagefolder (class folders under root/train and
    root/val), arrays (an .npz of `images`, uint8, and `labels`)."""
    root: str | None = None
    """Folder of the images, or the .npz file; not needed for digits and mnist. If no net is
    trained, root/train may be missing."""
    labels: bool = True
    """Classes of the images. If false, nothing can be trained and accuracies are unknown; images
    lie directly in root/val or, without such a folder, in `root`, and arrays need no `labels`. If
    nothing tells validation images apart, all images are compared."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of images kept for validation, in digits, mnist and arrays without a `validation`
    mask."""
    seed: NonNegativeInt = 0
    """Seed for drawing these validation images."""
    subset: Subset | None = None
    """Part of the training images to train on; all if null. Validation images stay the same."""
    probes: Annotated[dict[NetName, Probe], Field(exclude=True)] = {}
    """Other forms of the validation images, for `snakemake probes`: whether units that correspond
    on the validation images do so on these, too."""
    size: PositiveInt = 227
    """Side of the square view that the net sees, in pixels."""
    mean: list[Unit] = [0.481, 0.457, 0.408]
    """Mean of each channel, which is subtracted, on the scale 0 to 1; one number for grey, three
    for colour."""
    std: list[Annotated[float, Field(gt=0, le=1)]] = [1 / 255, 1 / 255, 1 / 255]
    """Divisor of each channel. With 1/255 the net sees 8-bit values minus their mean, as in Caffe;
    CaffeNet's initial weights and normalisation are made for that scale."""
    train_transform: TrainTransform = TrainTransform()
    """Views of the images that nets are trained on."""
    validation_transform: ValidationTransform = ValidationTransform()
    """Views of the images that nets are compared on."""

    @property
    def split(self) -> dict[str, Any]:
        """Keys that determine the validation images of a data set without a split of its own."""
        return {"validation_fraction": self.validation_fraction, "seed": self.seed}

    @property
    def is_packaged(self) -> bool:
        """True if the images come with a package, and so have no `root`."""
        return self.name in ("digits", "mnist")

    @property
    def views(self) -> tuple[Any, ...]:
        """Keys that determine the pixels of the views that a net is compared on."""
        return self.size, len(self.mean), self.validation_transform

    @property
    def is_folder(self) -> bool:
        """True if the images are files in folders."""
        return self.name in ("imagenet", "imagefolder")

    @property
    def place(self) -> str:
        """Folder or file of the images of a data set that comes with no package."""
        assert self.root is not None
        return self.root

    @model_validator(mode="after")
    def _check(self) -> Data:
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise ValueError("mean: needs as many numbers as std, one (grey) or three (colour)")
        if len(self.mean) != {"digits": 1, "mnist": 1, "cifar10": 3}.get(self.name, len(self.mean)):
            raise ValueError(f"mean: {len(self.mean)} numbers do not fit {self.name}")
        if not self.is_packaged and self.root is None:
            raise ValueError(f"root: missing; say where the {self.name} images are")
        if self.subset and not self.labels:
            raise ValueError("subset: images without labels train no net; leave out subset")
        self._check_view("validation_transform")
        return self

    def check_training(self) -> None:
        """Check the keys that matter only if a net is trained.

        Raises
        ------
        ValueError
            If training images are smaller than the views of the net.
        """
        self._check_view("train_transform", self.train_transform.shift)

    def _check_view(self, key: str, margin: int = 0) -> None:
        resize = getattr(self, key).resize
        side = resize if isinstance(resize, int) else min(resize)
        if side + 2 * margin < self.size:
            raise ValueError(f"{key}.resize: {side} pixels leave no view of size {self.size}")


def _check_source(name: str) -> str:
    parse(name)
    return name


class Source(Section):
    """A net that a function outside this library builds."""

    name: Annotated[str, AfterValidator(_check_source)]
    """Function that builds the net: `path.py:function` (the path relative to the configuration
    file; the file is code that is run), `torchvision:name` or `timm:name`."""
    arguments: dict[str, Any] = {}
    """Arguments of the function."""


def _complete(model: Any) -> Any:
    """Add the name of the default architecture if there is none, and leave out null keys."""
    if isinstance(model, str):
        return {"name": model}
    if not isinstance(model, Mapping):
        return model
    given = {key: value for key, value in model.items() if value not in (None, "null")}
    return {"name": DEFAULT} | given


# Tag of nets that come from a function outside this library.
SOURCE = "source"


def kind_of_model(model: Any) -> str:
    """Return the name of the architecture whose keys a section `model` has, or `source`."""
    name = model.get("name") if isinstance(model, Mapping) else getattr(model, "name", DEFAULT)
    return SOURCE if isinstance(name, str) and ":" in name else str(name)


if TYPE_CHECKING:
    Model = Any  # the union of sections is known only at run time
else:
    _choices = {name: a.options for name, a in ARCHITECTURES.items()} | {SOURCE: Source}
    # Keys of the architecture or the source that `name` selects.
    Model = Annotated[
        Union[tuple(Annotated[s, Tag(name)] for name, s in _choices.items())],  # noqa: UP007
        Discriminator(kind_of_model),
        BeforeValidator(_complete),
    ]


class Training(Section):
    """The recipe, the same for all nets."""

    epochs: PositiveInt = 90
    """Passes over the training images."""
    batch_size: PositiveInt = 256
    """Images per step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer: sgd with momentum, or adamw."""
    learning_rate: PositiveFloat = 0.01
    """Learning rate at the start, or at the peak of onecycle."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd; not used by adamw."""
    weight_decay: NonNegativeFloat = 5e-4
    """L2 penalty of sgd, decoupled decay of adamw."""
    schedule: Literal["step", "onecycle", "constant"] = "step"
    """Schedule of the rate: step multiplies it by `gamma` every `step_epochs`; onecycle rises and
    falls once."""
    step_epochs: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] = 20
    """Epochs between two steps, or a list of the epochs after which there is a step, such as
    [82, 123]."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor of a step."""
    compile: bool = False
    """Compilation of the net on a GPU: takes a minute at the start, then makes steps faster."""
    workers: NonNegativeInt = 8
    """Processes per net that decode image files."""
    snapshots: list[NonNegativeFloat] = []
    """Epochs after which weights are kept, such as [0, 0.1, 1, 5]: 0 is the untrained net, and
    fractions of an epoch are rounded to whole steps. Those after a net's last epoch do not concern
    it. They change no weights, but earlier ones that are added later make the net train anew."""

    @property
    def kept(self) -> list[float]:
        """Epochs of the snapshots that this training reaches."""
        return [epoch for epoch in self.snapshots if epoch <= self.epochs]

    @model_validator(mode="after")
    def _check(self) -> Training:
        if len(set(self.snapshots)) < len(self.snapshots):
            raise ValueError(f"snapshots: each epoch once, got {self.snapshots}")
        return self


class Activations(Section):
    """Recorded activations."""

    store: bool = True
    """Storage of activations on disk. If false, one job runs all nets side by side and computes
    their statistics, correlations and strongest images; maps are then not fitted by SGD, which
    needs a store."""
    keep: bool = True
    """Retention of stores after their last use. If false, each store is removed as soon as its last
    pair is done, and made again if anything needs it."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the activations; float16 halves the stores and holds values up to 65504. Layers that
    need more digits are stored in float32."""
    images: PositiveInt | None = None
    """Number of validation images to record, drawn at random; all if null."""
    positions: PositiveInt | None = None
    """Number of random positions per image to record in convolutional layers, the same for all
    nets; all if null. The strongest images are then the strongest at these positions."""
    batch_size: PositiveInt = 128
    """Images per step."""


class Statistics(Section):
    """Reduction of activations."""

    blocks: Annotated[int, Field(ge=2)] = 20
    """Number of blocks of images, each with its own moments, for split halves and intervals; the
    same for all layers, nets and pairs. Neighbouring blocks of wide layers are stored merged, so
    that they take less than 256 MB."""
    samples: Annotated[int, Field(ge=BINS)] = 60_000
    """Number of random samples per layer for mutual information, the same for all nets; all if
    there are fewer."""
    binning: Literal["paper", "reference"] = "paper"
    """Bins of mutual information: 5% of all of a unit's samples each (paper), or 5% of those in
    which it is active (reference, as in the authors' code); both with one more around zero."""
    seed: NonNegativeInt = 0
    """Seed of every random choice made in the analysis."""


class Nulls(Section):
    """Similarity by chance: what unlike nets would show."""

    rotation: NonNegativeInt = 20
    """Number of draws in which the second net's units are replaced by a random orthogonal mixture
    of them, which keeps the space that they span; 0 for none. A p value needs at least
    level / (1 - level) draws, which is 19 at a level of .95, and is empty with fewer."""
    images: NonNegativeInt = 20
    """Number of draws in which the second net sees the images in another order; 0 for none. Each
    reads the activations of both nets again, so that without `activations.store` there are none. p
    values as with `rotation`."""
    information: NonNegativeInt = 4
    """Number of draws, of those of each null, for which mutual information is computed as well; it
    takes many times as long as correlations. With the default there are bands, but no p values."""
    maps: NonNegativeInt = 19
    """Number of draws for the sparse maps and the clusters, whose chance is computed only if asked
    for by name, as `significance_of_maps`."""
    untrained: bool = True
    """Comparison with the weights of epoch 0: each net that the run trains is compared, too, as it
    was before its first step. These weights make no net of the run, but are recorded with it, which
    takes as long again and a second store of activations. Turned off later, statistics and
    correlations are made anew, from the activations that are there."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of a null's upper end, such as .95 for its 95% quantile."""
    seed: NonNegativeInt = 0
    """Seed of all draws."""

    @property
    def needed(self) -> int:
        """Least number of draws that can give a p value of 1 - `level`."""
        # Rounded first, since .9 / (1 - .9) is slightly more than 9.
        return math.ceil(round(self.level / (1 - self.level), 6))

    def too_few(self) -> str:
        """Say which nulls have draws, but too few for a p value at the level; empty if none."""
        few = [
            f"nulls.{name}: {getattr(self, name)}"
            for name in ("rotation", "images", "maps")
            if 0 < getattr(self, name) < self.needed
        ]
        if not few:
            return ""
        return (
            f"{', '.join(few)}: fewer than the {self.needed} draws that a p value of "
            f"{1 - self.level:.3g} needs (nulls.level), so these nulls have a mean and a band, but "
            "no p values"
        )


class Dask(Section):
    """The tasks that reduce activation stores."""

    scheduler: Annotated[
        str, StringConstraints(pattern=r"^(threads|processes|slurm|[a-z]+://[^\s/]+)$")
    ] = "threads"
    """Scheduler: threads, processes, slurm, or the address of a running scheduler of `distributed`,
    such as tcp://10.0.0.1:8786. The first two start as many workers as the job has threads; slurm
    submits `jobs` jobs of workers for each reduction. Workers outside the job compute on CPUs, not
    on GPUs, and must see the same files; those of a running scheduler need this library on their
    PYTHONPATH."""
    jobs: PositiveInt = 4
    """Number of jobs of workers for one reduction (slurm), each with the threads, memory and time
    of the reduction's own job."""
    partition: str | None = None
    """Partition of these jobs (slurm); the cluster's default if null."""
    account: str | None = None
    """Account that pays for these jobs (slurm); the user's default if null."""
    interface: str | None = None
    """Network interface on which scheduler and workers listen (slurm), such as ib0; if null, the
    interface with the address of the machine's host name."""

    @property
    def here(self) -> bool:
        """True if tasks run in the job itself."""
        return self.scheduler in ("threads", "processes")


class SgdMapping(Section):
    """The paper's fit of mapping layers by SGD, in addition to the exact fit."""

    layers: list[str] = []
    """Layers to fit for `figures.pair` at the paper's decays, shown in table1; none if empty. At
    the paper's size each layer takes minutes to an hour."""
    iterations: PositiveInt = 4500
    """Steps of 32 images."""


class SparseMapping(Section):
    """Sparse maps from net to net."""

    exponents: Annotated[list[Annotated[float, Field(ge=-10, le=2)]], Field(min_length=1)] = [
        -5, -4.5, -4, -3.8, -3.6, -3.4, -3.2, -3, -2.8, -2.6, -2.4, -2.2, -2, -1.5, -1,
    ]  # fmt: skip
    """Decays to fit at, as powers of ten, in addition to decay 0. The paper's are -5, -4, -3, -2
    and -1."""
    penalty: PositiveFloat = 0.25
    """Penalty of the map of a layer that is drawn and clustered: the map whose decay times the
    number of units is nearest to it. The paper's choices, 10^-2.6 in conv1 and 10^-3 in conv2, are
    both 0.25."""
    sgd: SgdMapping = SgdMapping()
    """The paper's fit by SGD, for comparison."""

    @property
    def decays(self) -> list[float]:
        """All decays, from 0 up."""
        return [0.0, *(10.0**exponent for exponent in sorted(set(self.exponents)))]


Clusters = PositiveInt | Literal["auto"]
Units = list[NonNegativeInt] | Literal["all"]


def _number(value: Any) -> int | None:
    """Read a whole number, or its string on Snakemake's command line; return None for others."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if type(value) is int and value >= 0 else None


def _check_clusters(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = {layer: v for layer, v in value.items() if v not in (None, "null")}
    values = value.values() if isinstance(value, Mapping) else [value]
    if not all(v == "auto" or _number(v) for v in values):
        raise ValueError(f"should be a number of clusters, auto, or these by layer, got {value!r}")
    return value


def _check_pictures(value: Any) -> Any:
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

    k: Annotated[Clusters | dict[str, Clusters], BeforeValidator(_check_clusters)] = {
        **PAPER_CLUSTERS
    }
    """Number of clusters, for all layers or by layer. auto takes the number at which the
    eigenvalues jump; it also applies to layers named in neither config.yaml nor an overlay."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Correlation up to which two units have no edge (the paper's tau)."""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.025
    """Largest share of both nets' units that a cluster may have; larger clusters are split."""


class Pruning(Section):
    """Removal of units, which figure `prune` shows."""

    steps: PositiveInt = 10
    """Number of equal steps in which the units of a layer are removed."""
    draws: PositiveInt = 5
    """Number of random orders."""
    seed: NonNegativeInt = 0
    """Seed of the random orders."""


class Ensembles(Section):
    """Ensembles of nets, which figure `ensemble` shows."""

    most: PositiveInt = 100
    """Largest number of ensembles of each size; of more, as many are drawn at random."""
    seed: NonNegativeInt = 0
    """Seed of the draw."""


class Dynamics(Section):
    """Nets along their training, at the epochs of `training.snapshots` and at its end."""

    nets: list[NetName] = []
    """Nets that are followed, all trained here for equally many epochs; the two of `figures.pair`
    if empty."""
    draws: NonNegativeInt = 99
    """Number of draws in which units exchange their partners, for the chance level of figure
    `settling`."""


class Pictures(Section):
    """Pictures of what activates units."""

    pictures: Annotated[
        Literal["all", "none"] | dict[str, Units], BeforeValidator(_check_pictures)
    ] = "all"
    """Units that get image patches and, where the net has them, deconvolutions: all, none, or by
    layer all or a list of numbers, with none in layers that are not named. At the paper's size the
    pictures of fc6 and of fc7 take 11 GB per net each."""


class Merging(Section):
    """Nets between the two nets of a pair, whose units were aligned first."""

    points: Annotated[int, Field(ge=3)] = 5
    """Number of points of the line from net to net, with both ends; odd, so that its middle is one
    of them. Each is a pass over the images."""
    images: Annotated[int, Field(ge=2)] = 2000
    """Number of training images, drawn at random with `statistics.seed`, on which units are
    measured to repair their means and deviations, and batch normalisation to reset it; all if there
    are fewer. They are run as one batch. Where no training images are listed, as in a run that
    trains no net, those of the half that chose the partners are taken."""
    automatic: bool = False
    """Merging of `figures.pair` as a part of the whole run, if both nets are trained here and have
    the same architecture. Otherwise it is asked for by name, as merge or collapse."""

    @model_validator(mode="after")
    def _check(self) -> Merging:
        if self.points % 2 == 0:
            raise ValueError(f"points: should be odd, so that 1/2 is one, got {self.points}")
        return self


class Figures(Section):
    """Contents of the figures."""

    side: Literal["strongest", "weakest"] = "strongest"
    """Images in fig2, figS2, figS4, figS11 and figS12: those with the largest activations of a
    unit, or the most negative, which layers behind a ReLU do not have."""
    pair: str | None = None
    """Pair shown by a figure that is requested by its bare name, such as net1-net2; the first pair
    if null."""
    layer: str | None = None
    """Layer of fig1, fig3, fig6, fig7, figS6 and figS11; the first if null."""
    second_layer: str | None = None
    """Layer of figS7, figS8 and figS12, the paper's conv2; the layer after `layer` if null."""


class Release(Section):
    """The run as others get it."""

    leave_out: list[str] = []
    """Patterns of files that a release is made without, such as `atlas/pictures/*`, by their paths
    in the folder of the run; for runs whose release would be too large."""


class Verify(Section):
    """Comparison with a published run."""

    against: str | None = None
    """Folder of the tables of a published run, relative to where Snakemake runs; those of the run
    of this name in `docs/findings` if null."""
