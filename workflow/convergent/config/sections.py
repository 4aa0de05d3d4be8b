"""The sections of the configuration: every key, its meaning and its allowed values.

Defaults are the paper's ImageNet run; ``config.yaml`` and ``presets/`` set what differs.
Nothing here imports a slow library, so that the Snakefile is read quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from convergent.nets.architectures import ARCHITECTURES, DEFAULT
from convergent.paper import BINS, PAPER_CLUSTERS
from convergent.running.sections import Section

# Names that are safe as names of folders and files, and short enough for any file system.
RunName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
NetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
Unit = Annotated[float, Field(ge=0, le=1)]


class Net(Section):
    """One net."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Seed of initial weights, order of images and dropout; each net needs its own."""


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


class Data(Section):
    """The images."""

    name: Literal["digits", "cifar10", "imagenet", "imagefolder", "arrays"] = "imagenet"
    """Data set: digits (in scikit-learn), cifar10 (downloaded to `root`), imagenet and imagefolder
    (class folders under root/train and root/val), arrays (an .npz of `images`, uint8, and
    `labels`)."""
    root: str | None = None
    """Folder of the images, or the .npz file; not needed for digits."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of images kept for validation, in digits and in arrays without a `validation` mask."""
    seed: NonNegativeInt = 0
    """Seed for drawing these validation images."""
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
    def is_folder(self) -> bool:
        """True if the images are files in class folders."""
        return self.name in ("imagenet", "imagefolder")

    @property
    def place(self) -> str:
        """Folder or file of the images of a data set other than digits."""
        assert self.root is not None
        return self.root

    @model_validator(mode="after")
    def _check(self) -> Data:
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


def _complete(model: Any) -> Any:
    """Add the name of the default architecture if there is none, and leave out null keys."""
    if not isinstance(model, Mapping):
        return model
    given = {key: value for key, value in model.items() if value not in (None, "null")}
    return {"name": DEFAULT} | given


if TYPE_CHECKING:
    Model = Any  # the union of sections is known only at run time
else:
    _options = Union[tuple(a.options for a in ARCHITECTURES.values())]  # noqa: UP007
    # Keys of the architecture that `name` selects.
    Model = Annotated[
        Annotated[_options, Field(discriminator="name")] if len(ARCHITECTURES) > 1 else _options,
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
    step_epochs: PositiveInt = 20
    """Epochs between two steps."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor of a step."""
    compile: bool = False
    """Compilation of the net on a GPU: takes a minute at the start, then makes steps faster."""
    workers: NonNegativeInt = 8
    """Processes per net that decode image files."""


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


class Pictures(Section):
    """Pictures of what activates units."""

    pictures: Annotated[
        Literal["all", "none"] | dict[str, Units], BeforeValidator(_check_pictures)
    ] = "all"
    """Units that get image patches and deconvolutions: all, none, or by layer all or a list of
    numbers, with none in layers that are not named. At the paper's size the pictures of fc6 and
    of fc7 take 11 GB per net each."""


class Figures(Section):
    """Contents of the figures."""

    pair: str | None = None
    """Pair shown by a figure that is requested by its bare name, such as net1-net2; the first pair
    if null."""
    layer: str = "conv1"
    """Layer of fig1, fig3, fig6, fig7, figS6 and figS11."""
    second_layer: str | None = None
    """Layer of figS7, figS8 and figS12, the paper's conv2; the layer after `layer` if null."""
