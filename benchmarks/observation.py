"""Four full-size AlexNets: statistics straight from the nets, beside the route through stores.

Untrained nets on images of noise, 227 pixels; all of a run's statistics and correlations, in one
process, without the start of jobs. Routes are interleaved, ratios are medians.

    uv run python benchmarks/observation.py [--images 160] [--runs 3] [--layers conv1 conv2 ...]
"""

import argparse
import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import THREADS, header, interleaved, median_ratio

from convergent.activations import from_nets, recording, statistics
from convergent.nets import models
from convergent.running.stores import open_store

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5"]
OPTIONS = {"blocks": 4, "samples": 20_000}


def make_nets(number: int) -> dict[str, torch.nn.Module]:
    nets = {}
    for seed in range(1, number + 1):
        torch.manual_seed(seed)
        nets[f"net{seed}"] = models.build(init="kaiming").eval()
    return nets


def through_stores(folder: Path, nets: dict, images: torch.Tensor, layers: list[str]) -> None:
    for name, net in nets.items():
        recording.record(net, images, layers, folder / name, batch_size=32)
        statistics.write_statistics(
            folder / name, folder / f"{name}.zarr", layers, workers=THREADS, **OPTIONS
        )
    for a, b in itertools.combinations(nets, 2):
        statistics.write_correlation(
            folder / a, folder / b, folder / f"{a}-{b}.zarr", layers,
            blocks=OPTIONS["blocks"], workers=THREADS,
        )  # fmt: skip


def straight(folder: Path, nets: dict, images: torch.Tensor, layers: list[str]) -> None:
    from_nets.observe(
        nets,
        images.split(32),
        layers,
        {name: folder / f"{name}.live" for name in nets},
        {(a, b): folder / f"{a}-{b}.live" for a, b in itertools.combinations(nets, 2)},
        image_index=np.arange(len(images)),
        threads=THREADS,
        **OPTIONS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--nets", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", nargs="+", default=LAYERS)
    options = parser.parse_args()
    header()
    torch.set_num_threads(THREADS)
    nets = make_nets(options.nets)
    images = torch.randn(options.images, 3, 227, 227)
    folder = Path(tempfile.mkdtemp())
    try:
        arguments = (folder, nets, images, options.layers)
        times = interleaved(
            {
                "through stores": lambda: through_stores(*arguments),
                "straight": lambda: straight(*arguments),
            },
            options.runs,
        )
        for layer in options.layers:
            found, expected = (
                open_store(folder / f"net1-net2.{end}")[f"{layer}/correlation"][...]
                for end in ("live", "zarr")
            )
            print(f"{layer}: largest difference {np.abs(found - expected).max():.1e}")
    finally:
        shutil.rmtree(folder)
    ratio = median_ratio(times["through stores"], times["straight"])
    print(f"{options.nets} nets, {options.images} images: {ratio:.2f} times as fast as by stores")


if __name__ == "__main__":
    main()
