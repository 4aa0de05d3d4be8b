"""Recording all layers of a full-size AlexNet, beside its forward pass and the writing alone.

Runs are interleaved, ratios are medians. `--memory` instead prints the peak memory of recording
alone, for 1x, 2x and 4x the images.

    uv run python benchmarks/recording.py [--photographs FOLDER]
    uv run python benchmarks/recording.py --images 250 --memory
"""

import argparse
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import photographs
import torch
from common import THREADS, header, interleaved, peak_of

from convergent.activations.recording import record
from convergent.nets.models import evaluating
from convergent.running.stores import create, new_store, open_store


def forward(net: torch.nn.Module, x: torch.Tensor, batch_size: int) -> None:
    with evaluating(net, "cpu", channels_last=True), torch.inference_mode():
        for batch in x.split(batch_size):
            net(batch)


def write(blocks: dict[str, np.ndarray], path: Path) -> None:
    with new_store(path) as group, ThreadPoolExecutor(THREADS) as pool:
        for layer, block in blocks.items():
            names = ("image", "y", "x", "unit") if block.ndim == 4 else ("image", "unit")
            rows = max(1, len(block) // 64)  # as recording does
            array = create(group, layer, block.shape, block.dtype, names, chunk_rows=rows)
            for start in range(0, len(block), array.shards[0]):
                rows = slice(start, start + array.shards[0])
                pool.submit(array.__setitem__, rows, block[rows])


def record_batches(images: int, size: int, folder: str | None) -> None:
    net = photographs.net()
    batches = photographs.batches(images, size, folder)
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        store, layers = Path(scratch, "a.zarr"), photographs.layers(net)
        record(net, batches, layers, store, image_index=np.arange(images))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--photographs", help="folder of images; noise without")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    images, size, folder = options.images, options.batch_size, options.photographs
    header()
    if options.memory:
        for n in (images, 2 * images, 4 * images):
            call = f"import recording; recording.record_batches({n}, {size}, {folder!r})"
            print(f"{n} images: peak {peak_of(call)} MB")
        return
    torch.set_num_threads(THREADS)
    net = photographs.net()
    layers = photographs.layers(net)
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        store = Path(scratch, "a.zarr")
        x = torch.cat(list(photographs.batches(images, size, folder)))
        record(net, x, layers, store, batch_size=size)
        blocks = {layer: open_store(store)[layer][...] for layer in layers}
        seconds = interleaved(
            {
                "record": lambda: record(net, x, layers, store, batch_size=size),
                "forward": lambda: forward(net, x, size),
                "write": lambda: write(blocks, store),
            },
            options.runs,
        )
    megabytes = sum(block.nbytes for block in blocks.values()) / 1e6
    print(f"{images} images, {megabytes:.0f} MB")
    for name, times in seconds.items():
        print(f"{name:8s} {statistics.median(times):6.2f} s")
    ratios = [r / max(f, w) for r, f, w in zip(*seconds.values(), strict=True)]
    print(f"recording takes {statistics.median(ratios):.2f} x the larger of both")


if __name__ == "__main__":
    main()
