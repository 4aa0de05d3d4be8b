"""Response normalisation and training steps beside torch's own, and images decoded per second.

One thread; runs are interleaved, figures are medians.

    uv run python benchmarks/training.py [--images FOLDER] [--runs 7]
"""

import argparse
import statistics
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from common import header, interleaved, median_ratio
from torch import nn

from convergent.nets import models, modules
from convergent.nets.datasets import Images

SHAPES = {
    "CIFAR-10, after conv1": (64, 48, 15, 15),
    "CIFAR-10, after conv2": (64, 96, 7, 7),
    "AlexNet at 227, after conv1": (32, 96, 27, 27),
    "AlexNet at 227, after conv2": (32, 256, 13, 13),
}
# presets/cifar10.yaml
NET = {
    "size": 32, "classes": 10, "channels": (48, 96, 128, 128, 96), "init": "kaiming",
    "fully_connected": (512, 512), "kernel": 5, "stride": 1, "padding": 2,
}  # fmt: skip


def passes(net: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Run forwards and backwards, after one trial."""
    net = net.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    signal = torch.randn_like(net(x))
    return lambda: net(x).backward(signal)


def torchs(net: nn.Sequential) -> nn.Sequential:
    """Build the net with torch's own normalisation."""
    for name, child in net.named_children():
        if isinstance(child, modules.LocalResponseNorm):
            setattr(net, name, nn.LocalResponseNorm(child.size, child.alpha))
    return net


def decoding(folder: Path) -> float:
    """Images a second: training views of up to 256 JPEGs, as presets/imagenet.yaml has them."""
    files = sorted(folder.rglob("*.[jJ][pP]*[gG]"))[:256]
    rows = {"label": 0, "path": files, "crc32": [zlib.crc32(f.read_bytes()) for f in files]}
    images = Images(pd.DataFrame(rows), folder, resize=(256, 256), size=227, channels=3, flip=True)
    images.draw(0)
    way = {"": lambda: images.__getitems__(list(range(len(images))))}
    return len(images) / statistics.median(interleaved(way, 5)[""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    header()
    torch.set_num_threads(1)
    rows = [
        (name, 30 * torch.rand(shape), modules.LocalResponseNorm(), nn.LocalResponseNorm(5, 1e-4))
        for name, shape in SHAPES.items()
    ]
    nets = models.build(**NET), torchs(models.build(**NET))
    rows.append(("CIFAR-10, the whole net", torch.randn(64, 3, 32, 32), *nets))
    for name, x, ours, theirs in rows:
        pair = {"ours": passes(ours, x), "torch's": passes(theirs, x)}
        times = interleaved(pair, arguments.runs)
        fast, ratio = (
            statistics.median(times["ours"]),
            median_ratio(times["torch's"], times["ours"]),
        )
        print(f"{name:>28} {1000 * fast:6.1f} ms, torch's {ratio:.1f} times")
    if arguments.images:
        print(f"{decoding(arguments.images):.0f} images a second and worker")


if __name__ == "__main__":
    main()
