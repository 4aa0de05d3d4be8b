"""Memory and time that jobs request, estimated from the layers, units and images of a run.

A cluster waits until it has the resources that a job requests, and kills the job if it uses more.
Times are ten minutes plus work divided by rates several times lower than those measured on two
cores (docs/scale.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from convergent.config import Config, count_images
from convergent.nets.shapes import Shapes

# Multiply-adds a second: of nets on a thread and on a GPU; of matrices, and of their
# eigenvectors, which take several passes, on a thread.
NET_RATE, GPU_RATE, PRODUCT_RATE, EIGEN_RATE = 1e10, 3e12, 2e9, 3e8
# Activations a second that one thread compresses, or reads.
VALUE_RATE = 2e7
# Image files a second that one process decodes.
DECODE_RATE = 150
# Examples of each unit that get pictures.
EXAMPLES = 9


class Resources(NamedTuple):
    """Memory and time that a job requests."""

    mem_mb: int
    """Megabytes."""
    runtime: int
    """Minutes."""

    @classmethod
    def of(cls, megabytes: float, seconds: float) -> Resources:
        """Round up, and add ten minutes for work that does not depend on the size of a run."""
        return cls(math.ceil(megabytes), 10 + math.ceil(seconds / 60))


class Estimates:
    """Estimates of the memory and time that the jobs of each stage need.

    Each stage has a method that takes the number of threads of a job. Images in folders are not
    counted but estimated.

    Parameters
    ----------
    run : Config
    shapes : sequence of Shapes
        Shapes of the run's nets; if empty, only work on images is estimated.
    """

    def __init__(self, run: Config, shapes: Sequence[Shapes]) -> None:
        options = run.activations
        self.run = run
        self.training, self.validation = count_images(run.data)
        self.recorded = min(options.images or self.validation, self.validation)
        # Of the costliest net for one image: multiply-adds, and values of all layers.
        self.net = max((net.costs.multiply_adds for net in shapes), default=0)
        self.weights = max((net.costs.parameters for net in shapes), default=0)
        self.values = max((net.costs.outputs for net in shapes), default=0)
        # Units and recorded positions of each layer, of the net in which it has most.
        self.unit_counts: dict[str, int] = {}
        self.positions: dict[str, int] = {}
        for net in shapes:
            for name in run.layers:
                layer = net.layers[name]
                positions = run.recorded_positions(layer)
                self.unit_counts[name] = max(layer.units, self.unit_counts.get(name, 0))
                self.positions[name] = max(positions, self.positions.get(name, 0))
        self.widths = list(self.unit_counts.values())
        self.widest = max(self.widths, default=0)
        self.recorded_values = sum(self.positions[name] * n for name, n in self.unit_counts.items())
        self.item = 4 if options.dtype == "float32" else 2
        # Multiply-adds of an image's samples in a correlation matrix of every layer.
        self.products = sum(self.positions[name] * n**2 for name, n in self.unit_counts.items())

    def threads(self, stage: str) -> int:
        """Return the number of threads for a stage, several only if layers are large."""
        if stage == "fit_maps":
            return 4 if self.widest > 256 else 1
        if stage == "cluster":
            # The decomposition of large graphs takes two.
            return 2 if self.widest > 1000 else 1
        return 4 if self.recorded_values > 100_000 else 1

    def images(self, threads: int) -> Resources:
        """Estimate the job that lists and checks all images."""
        return Resources.of(
            self._torch(threads), self._decode(self.training + self.validation, threads)
        )

    def train(self, threads: int) -> Resources:
        """Estimate training: an epoch is three passes over training images, one over the rest."""
        images = self.training + self.validation
        once = self._decode(images, threads) + self._forward(3 * images, threads)
        # Weights, gradients and two averages; values of a batch, kept for its gradients.
        net = 16 * self.weights + 12 * self.run.training.batch_size * self.values
        return Resources.of(self._torch(threads) + net / 10**6, self.run.training.epochs * once)

    def record(self, threads: int, nets: int = 1) -> Resources:
        """Estimate recording one net, or several side by side."""
        images = self.recorded * nets
        seconds = self._decode(images, threads) + self._forward(images, threads)
        batch = self.run.activations.batch_size * (12 * self.values + 2 * self._recorded_bytes())
        net = 8 * nets * self.weights
        seconds += images * self.recorded_values / VALUE_RATE
        return Resources.of(self._torch(threads) + (batch + net) / 10**6, seconds)

    def statistics(self, threads: int, nets: int = 1) -> Resources:
        """Estimate reducing stores of nets: a few matrices of a layer for each thread."""
        reading = nets * self.recorded_values / VALUE_RATE / threads
        matrices = threads * (200 + 32 * self.widest**2 / 10**6)
        samples = self.run.statistics.samples * self.widest * 6 / 10**6
        seconds = self.recorded * (reading + self.products / (PRODUCT_RATE * threads))
        return Resources.of(1500 + matrices + samples, seconds)

    def correlation(self, threads: int) -> Resources:
        """Estimate correlating the units of a pair."""
        return self.statistics(threads, nets=2)

    def observe(self, threads: int) -> Resources:
        """Estimate running all nets side by side: batches, samples, matrices of all pairs."""
        nets = len(self.run.nets)
        recording, pairs = self.record(threads, nets), nets * (nets + 1) / 2
        batches = 2 * self.run.activations.batch_size * self._recorded_bytes()
        samples = self.run.statistics.samples * sum(self.widths) * nets * self.item
        matrices = 20 * nets**2 * sum(n**2 for n in self.widths)
        products = pairs * self.recorded * self.products / (PRODUCT_RATE * threads)
        return Resources.of(
            1500 + recording.mem_mb + (batches + samples + matrices) / 10**6,
            60 * (recording.runtime - 10) + products,
        )

    def measure(self, threads: int) -> Resources:
        """Estimate comparing all units of two nets: codes, plain and packed; matrices."""
        samples = self.run.statistics.samples
        codes, matrices = 4 * samples * self.widest, 40 * self.widest**2
        seconds = samples * sum(n**2 for n in self.widths) / (PRODUCT_RATE * threads)
        return Resources.of(1000 + (codes + matrices) / 10**6, seconds)

    def match(self, threads: int) -> Resources:
        """Estimate matching units by two measures."""
        return self._matrices(500, 40, 2 * sum(n**3 for n in self.widths) / PRODUCT_RATE)

    def agreement(self, threads: int) -> Resources:
        """Estimate ranking all entries of two matrices."""
        return self._matrices(500, 100, sum(n**2 for n in self.widths) / 10**5)

    def similarity(self, threads: int) -> Resources:
        """Estimate comparing layers: moments of all blocks within and between nets, twice."""
        # Stored blocks of a layer take 256 MiB of float32 at most.
        blocks = min(self.run.statistics.blocks * self.widest**2 * 8, 2**29)
        seconds = self.run.statistics.blocks * sum(n**2 for n in self.widths) / 10**7
        return Resources.of(500 + 6 * blocks / 10**6, seconds)

    def joint_densities(self, threads: int) -> Resources:
        """Estimate counting joint values of a few units over some thousand images."""
        images = 0 if self.run.activations.store else 2 * min(self.recorded, 5000)
        seconds = self._decode(images, threads) + self._forward(images, threads)
        batch = 12 * self.run.activations.batch_size * self.values
        return Resources.of(self._torch(threads) + batch / 10**6, seconds)

    def fit_maps(self, threads: int) -> Resources:
        """Estimate fitting exact maps of both directions and halves: two copies, some matrices."""
        decays = len(self.run.mapping.decays)
        seconds = 4 * decays * sum(n**3 for n in self.widths) / (PRODUCT_RATE * threads)
        return self._matrices(1000, 16 * decays + 150, seconds)

    def fit_maps_sgd(self, threads: int) -> Resources:
        """Estimate fitting maps by SGD: batches of 16 images, products within and between."""
        steps = self.run.mapping.sgd.iterations * 16
        once = 2 * self.products / (PRODUCT_RATE * threads)
        once += 2 * self.recorded_values / VALUE_RATE
        return self._matrices(2500, 300, steps * once)

    def mapping(self, threads: int) -> Resources:
        """Estimate writing rows about maps that are read one by one."""
        maps = 2 * len(self.run.mapping.decays) * sum(n**2 for n in self.widths)
        return self._matrices(1000, 20, maps / VALUE_RATE)

    def hac(self, threads: int) -> Resources:
        """Estimate building a tree of both nets' units."""
        return self._matrices(1000, 120, sum(n**2 for n in self.widths) / 10**5)

    def cluster(self, threads: int) -> Resources:
        """Estimate decomposing graphs of both nets' units."""
        seconds = sum((2 * n) ** 3 for n in self.widths) / (EIGEN_RATE * threads)
        return self._matrices(1000, 250, seconds)

    def units(self, threads: int) -> Resources:
        """Estimate pictures of units: a pass forward and back through the net for each."""
        chosen = self.run.pictures.items()
        pictures = sum(self.unit_counts[k] if v is None else len(v) for k, v in chosen) * EXAMPLES
        batch = 24 * 32 * self.values
        seconds = self._forward(3 * pictures, threads) + self._decode(pictures, threads)
        return Resources.of(self._torch(threads) + 1000 + batch / 10**6, seconds)

    def atlas(self, threads: int) -> Resources:
        """Estimate copying correlations of all pairs and pictures of all nets."""
        entries = len(self.run.pairs) * sum(n**2 for n in self.widths)
        pictured = len(self.run.nets) * sum(self.unit_counts[layer] for layer in self.run.pictures)
        return self._matrices(1000, 60, entries / 10**5 + pictured / 20)

    def figure(self, threads: int) -> Resources:
        """Estimate drawing a figure that shows matrices of a layer."""
        return self._matrices(1000, 120, 0)

    def _forward(self, images: float, threads: int) -> float:
        on_gpu = self.run.device != "cpu"
        return images * self.net / (GPU_RATE if on_gpu else NET_RATE * threads)

    def _decode(self, images: float, threads: int) -> float:
        return images / (DECODE_RATE * threads) if self.run.data.is_folder else 0

    def _recorded_bytes(self) -> int:
        return self.recorded_values * self.item

    def _torch(self, threads: int) -> float:
        """Estimate megabytes of torch, of decoding processes and of images kept in memory."""
        if self.run.data.is_folder:
            return 1500 + 700 * threads
        pixels = len(self.run.data.mean) * self.run.data.size**2
        return 1500 + (self.training + self.validation) * pixels / 10**6

    def _matrices(self, constant: float, bytes_each: float, seconds: float) -> Resources:
        """Estimate a job that holds `bytes_each` per entry of the widest layer's matrix."""
        return Resources.of(constant + bytes_each * self.widest**2 / 10**6, seconds)
