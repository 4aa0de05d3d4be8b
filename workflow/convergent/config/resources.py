"""Memory and time that jobs request, estimated from the layers, units and images of a run.

A cluster waits until it has the resources that a job requests, and kills the job if it uses more.
Times are ten minutes plus work divided by rates several times lower than those measured on two
cores (docs/scale.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
# Pairs of images whose similarity is computed and sorted, to find the nearest of each image.
NEIGHBOUR_RATE = 2e7
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
    shapes : mapping of net to Shapes
        Shapes of the run's nets, as far as they are known; if empty, only work on images is
        estimated.
    """

    def __init__(self, run: Config, shapes: Mapping[str, Shapes]) -> None:
        options = run.activations
        self.run = run
        self.training, self.validation = count_images(run.data, run.trains)
        self.recorded = min(options.images or self.validation, self.validation)
        nets = list(shapes.values())
        # Of the costliest net for one image: multiply-adds, and values of all layers.
        self.net = max((net.costs.multiply_adds for net in nets), default=0)
        self.weights = max((net.costs.parameters for net in nets), default=0)
        self.values = max((net.costs.outputs for net in nets), default=0)
        # Side and channels of the largest view, and the longest training.
        data = [run.nodes[name].data for name in shapes] or [run.data]
        self.pixels = max(len(each.mean) * each.size**2 for each in data)
        recipes = [run.nodes[name].training for name in shapes] or [run.training]
        self.epochs = max(recipe.epochs for recipe in recipes)
        self.batch_size = max(recipe.batch_size for recipe in recipes)
        # Units and recorded positions of each layer, of the net in which it has most.
        self.unit_counts: dict[str, int] = {}
        self.positions: dict[str, int] = {}
        for name, net in shapes.items():
            for key in run.layers_of(name):
                layer = net.layers[key]
                positions = run.recorded_positions(layer)
                self.unit_counts[key] = max(layer.units, self.unit_counts.get(key, 0))
                self.positions[key] = max(positions, self.positions.get(key, 0))
        # Units that are pictured in each layer that is known.
        self.pictured = {
            key: len(units) if units is not None else self.unit_counts[key]
            for key, units in run.pictures.items()
            if key in self.unit_counts
        }
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
        if stage == "compare_layers":
            # At 110,000 values an image, a second thread does a tenth of the work.
            return 2 if self.recorded_values > 300_000 or self.widest > 1000 else 1
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
        net = 16 * self.weights + 12 * self.batch_size * self.values
        return Resources.of(self._torch(threads) + net / 10**6, self.epochs * once)

    def record(self, threads: int, untrained: bool = False) -> Resources:
        """Estimate recording a net, and what it was before training."""
        nets = 2 if untrained else 1
        once = self._side_by_side(threads, nets)
        # Here each of the nets is given whole batches.
        return Resources(once.mem_mb + math.ceil((nets - 1) * self._batch_mb()), once.runtime)

    def _side_by_side(self, threads: int, nets: int) -> Resources:
        """Estimate running several nets that share the images of a batch."""
        images = self.recorded * nets
        seconds = self._decode(images, threads) + self._forward(images, threads)
        seconds += images * self.recorded_values / VALUE_RATE
        net = 8 * nets * self.weights / 10**6
        return Resources.of(self._torch(threads) + self._batch_mb() + net, seconds)

    def _batch_mb(self) -> float:
        """Estimate megabytes of a batch of images in a net, and of what is recorded of it."""
        each = 12 * self.values + 2 * self._recorded_bytes()
        return self.run.activations.batch_size * each / 10**6

    def statistics(self, threads: int, untrained: bool = False) -> Resources:
        """Estimate reducing the store of a net, and then that of what it was before training."""
        # The mean of each unit over each image.
        means = 8 * self.recorded * self.widest / 10**6
        once = self._reduced(threads, 1, 1)
        times = 2 if untrained else 1
        return Resources(once.mem_mb + math.ceil(means), 10 + times * (once.runtime - 10))

    def correlation(self, threads: int, untrained: bool = False) -> Resources:
        """Estimate correlating the units of a pair, and of three pairs with untrained nets."""
        return self._reduced(threads, 4, 4) if untrained else self._reduced(threads, 2, 1)

    def _reduced(self, threads: int, nets: int, products: int) -> Resources:
        """Estimate reducing stores of nets: a few matrices of each product for each thread."""
        reading = nets * self.recorded_values / VALUE_RATE / threads
        matrices = threads * (200 + 32 * products * self.widest**2 / 10**6)
        samples = self.run.statistics.samples * self.widest * 6 / 10**6
        seconds = products * self.products / (PRODUCT_RATE * threads)
        return Resources.of(1500 + matrices + samples, self.recorded * (reading + seconds))

    def observe(self, threads: int) -> Resources:
        """Estimate running all nets side by side: batches, samples, matrices of all pairs."""
        nets, controls = len(self.run.nodes), 3 * len(self.run.controlled)
        untrained = nets if controls else 0
        recording, pairs = self._side_by_side(threads, nets + untrained), nets * (nets + 1) / 2
        batches = 2 * self.run.activations.batch_size * self._recorded_bytes()
        # Values of samples; of untrained nets, their codes as well.
        samples = nets * self.item + untrained * (self.item + 1)
        samples *= self.run.statistics.samples * sum(self.widths)
        means = 4 * self.recorded * ((nets + untrained) * sum(self.widths) + 2 * self.widest)
        # Of untrained nets in two halves: each kept, and once more while it is made.
        matrices = 20 * nets**2 + 16 * (untrained + controls)
        matrices *= sum(n**2 for n in self.widths)
        products = (pairs + untrained + controls) * self.recorded * self.products
        products /= PRODUCT_RATE * threads
        return Resources.of(
            1500 + recording.mem_mb + (batches + samples + means + matrices) / 10**6,
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

    def compare_layers(self, threads: int) -> Resources:
        """Estimate comparing layers, without each block and with the draws of their nulls."""
        nulls, cubes = self.run.nulls, sum(n**3 for n in self.widths)
        # Stored blocks of a layer take 256 MiB of float32 at most.
        blocks = min(self.run.statistics.blocks * self.widest**2 * 8, 2**29)
        codes = 4 * (4 + self.item) * self.run.statistics.samples * self.widest
        matrices = 320 * self.widest**2 + 112 * self._pairs_of_images()
        # Decompositions of the pair, its halves and its controls; products and assignments of each
        # draw; and mutual information of some.
        seconds = 12 * cubes / (EIGEN_RATE * threads)
        seconds += (nulls.rotation + nulls.images) * 10 * cubes / (PRODUCT_RATE * threads)
        seconds += (4 + 2 * nulls.information) * 60 * (self.measure(threads).runtime - 10)
        if self.run.activations.store:
            seconds += nulls.images * 60 * (self.correlation(threads).runtime - 10)
        # Nearest images in each layer, on all images and on halves, trained and untrained.
        seconds += 12 * len(self.widths) * self.recorded**2 / NEIGHBOUR_RATE
        return Resources.of(1000 + 300 * threads + (6 * blocks + codes + matrices) / 10**6, seconds)

    def observe_epoch(self, threads: int) -> Resources:
        """Estimate running followed nets beside their final states: moments of blocks, means."""
        nets, targets = self._followed()
        recording = self._side_by_side(threads, 2 * nets)
        batches = 2 * self.run.activations.batch_size * self._recorded_bytes()
        means = 4 * self.recorded * nets * sum(self.widths)
        blocks = sum(min(4 * self.run.statistics.blocks * n**2, 2**28) for n in self.widths)
        seconds = targets * self.recorded * self.products / (PRODUCT_RATE * threads)
        return Resources.of(
            1500 + recording.mem_mb + (batches + means + 2 * targets * blocks) / 10**6,
            60 * (recording.runtime - 10) + seconds,
        )

    def follow_training(self, threads: int) -> Resources:
        """Estimate comparing followed nets at each epoch, one layer of one epoch at a time."""
        targets = len(self.run.followed()[1]) * self._followed()[1]
        blocks = min(self.run.statistics.blocks * self.widest**2 * 8, 2**29)
        cubes = sum(n**3 for n in self.widths)
        seconds = targets * (2 + self.run.nulls.rotation) * 10 * cubes / PRODUCT_RATE
        return Resources.of(1000 + (6 * blocks + 160 * self.widest**2) / 10**6, seconds)

    def observe_probe(self, threads: int) -> Resources:
        """Estimate running all nets on a probe, as on the images themselves."""
        return self.observe(threads)

    def compare_probes(self, threads: int) -> Resources:
        """Estimate scoring partners on each probe: blocks of two of them, for every pair."""
        blocks = min(self.run.statistics.blocks * self.widest**2 * 8, 2**29)
        pairs = len(self.run.compared) * (1 + len(self.run.probes))
        seconds = pairs * self.run.statistics.blocks * sum(n**2 for n in self.widths) / 10**6
        kept = (1 + len(self.run.probes)) * 3 * blocks
        return Resources.of(1000 + (3 * blocks + kept + 160 * self.widest**2) / 10**6, seconds)

    def _followed(self) -> tuple[int, int]:
        """Count the followed nets, and the stores of moments of an epoch."""
        nets = len(self.run.followed()[0])
        return nets, 2 * nets + nets * (nets - 1) // 2

    def compare_maps(self, threads: int) -> Resources:
        """Estimate fitting maps and clusters to each draw of their nulls."""
        fits, clusters = self.fit_maps(threads), self.cluster(threads)
        draws = 1 + 3 * self.run.nulls.maps
        return Resources(
            fits.mem_mb + clusters.mem_mb, 10 + draws * (fits.runtime + clusters.runtime - 20)
        )

    def layer_pairs(self, threads: int) -> Resources:
        """Estimate comparing all layers of two nets: one pass over both stores for most nets."""
        # Moments of every block: of the pairs of a pass and within its layers, or of two wide
        # layers, whose blocks are merged.
        blocks, squares = self.run.statistics.blocks, [n**2 for n in self.widths]
        narrow = sum(square for square in squares if 4 * blocks * square <= 2**28)
        entries = min(sum(self.widths) ** 2, 2**21) + 2 * narrow
        moments = max(8 * blocks * entries, 3 * min(8 * blocks * self.widest**2, 2**29))
        # Every layer of one net meets every layer of the other, at the positions of either.
        products = sum(self.positions[name] * n for name, n in self.unit_counts.items())
        seconds = self.recorded * products * sum(self.widths) / (PRODUCT_RATE * threads)
        passes = 1 + sum(self.widths) ** 2 / 2**21
        seconds += 2 * passes * self.recorded * self.recorded_values / VALUE_RATE / threads
        seconds += blocks * sum(self.widths) ** 2 / 10**6
        seconds += 4 * len(self.widths) ** 2 * self.recorded**2 / NEIGHBOUR_RATE
        # Moments are held as parts, merged from the end, and with each block left out; pairs of
        # images of every layer of both nets.
        held = 3 * moments + (80 + 16 * len(self.widths)) * self._pairs_of_images()
        return Resources.of(1000 + 300 * threads + held / 10**6, seconds)

    def _pairs_of_images(self) -> int:
        """Count the pairs of images whose inner products are compared."""
        return min(self.recorded, 2000) ** 2

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

    def prune(self, threads: int) -> Resources:
        """Estimate running both nets for each step of each order and removal in every layer."""
        options, layers = self.run.pruning, len(self.widths) + 1
        return self._runs(4 * layers * (3 + options.draws) * options.steps, threads)

    def stitch(self, threads: int) -> Resources:
        """Estimate fitting maps of a layer, also of two controls, and running nets from it on."""
        fits, maps = self.fit_maps(threads), len(self.run.mapping.decays) + 3
        runs = self._runs(2 * len(self.widths) * 3 * maps, threads)
        turns = self.correlation(threads)
        return Resources(
            fits.mem_mb + runs.mem_mb + 3 * fits.mem_mb,
            6 * (fits.runtime - 10) + 2 * turns.runtime + runs.runtime,
        )

    def ensembles(self, threads: int) -> Resources:
        """Estimate running the nets, and scoring many ensembles of their answers."""
        nets = len(self.run.nodes)
        runs = self._runs(nets, threads)
        scored = nets * self.run.ensembles.most * self.recorded * 1000 / VALUE_RATE
        pairs = len(self.run.compared) * (self.match(threads).runtime - 10)
        blocks = 3 * min(self.run.statistics.blocks * self.widest**2 * 8, 2**29) / 10**6
        return Resources(
            math.ceil(runs.mem_mb + blocks), runs.runtime + pairs + math.ceil(scored / 60)
        )

    def _runs(self, times: int, threads: int) -> Resources:
        """Estimate running nets on the recorded images, many times on each batch."""
        once = self.record(threads)
        seconds = self._forward(times * self.recorded, threads)
        return Resources(once.mem_mb, once.runtime + math.ceil(seconds / 60))

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

    def merge_nets(self, threads: int) -> Resources:
        """Estimate running nets between two nets, all of whose weights are there at once."""
        statistics = min(self.training or self.validation, self.run.merging.images)
        # Five alignments, each with its permuted weights and its net, beside the parents.
        nets = 4 * 14 * self.weights + 12 * statistics * self.values
        # Of each alignment, each point is a pass over the images for three curves.
        images = self.run.merging.points * 6 * (3 * self.recorded + 2 * statistics)
        seconds = self._forward(images, threads)
        seconds += self.run.merging.points * self._decode(self.recorded, threads)
        codes = 8 * self.run.statistics.samples * self.widest + 100 * self.widest**2
        return Resources.of(self._torch(threads) + (nets + codes) / 10**6, seconds)

    def zip_nets(self, threads: int) -> Resources:
        """Estimate running both nets for each share, plain and repaired."""
        statistics = min(self.training or self.validation, self.run.merging.images)
        points = self.run.merging.points
        # Both permuted nets beside the parents, and marks of weights; two outputs of each map.
        nets = 4 * 8 * self.weights + 24 * statistics * self.values
        images = points * 4 * (self.recorded + 2 * statistics)
        seconds = self._forward(images, threads) + self._decode(self.recorded, threads)
        blocks = 100 * self.widest**2
        return Resources.of(self._torch(threads) + (nets + blocks) / 10**6, seconds)

    def units(self, threads: int) -> Resources:
        """Estimate pictures of units: a pass forward and back through the net for each."""
        pictures = sum(self.pictured.values()) * EXAMPLES
        batch = 24 * 32 * self.values
        seconds = self._forward(3 * pictures, threads) + self._decode(pictures, threads)
        return Resources.of(self._torch(threads) + 1000 + batch / 10**6, seconds)

    def atlas(self, threads: int) -> Resources:
        """Estimate copying correlations of all pairs, placing units, and pictures of all nets."""
        entries = len(self.run.compared) * sum(n**2 for n in self.widths)
        pictured = len(self.run.nodes) * sum(self.pictured.values())
        return self._matrices(1500, 90, entries / 10**5 + pictured / 20)

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
        return 1500 + (self.training + self.validation) * self.pixels / 10**6

    def _matrices(self, constant: float, bytes_each: float, seconds: float) -> Resources:
        """Estimate a job that holds `bytes_each` per entry of the widest layer's matrix."""
        return Resources.of(constant + bytes_each * self.widest**2 / 10**6, seconds)
