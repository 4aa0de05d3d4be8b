"""Sizes of a recorded layer, and speeds of writing and reading it, by the choices of a store.

    uv run python benchmarks/stores.py
    uv run python benchmarks/stores.py --store results/digits/activations/net1.zarr --layer conv2

Records a layer of a full-size AlexNet, or takes up to 128 MB of one recorded
before. Each row differs in one choice from the first, which is what `convergent.running.stores`
does. Runs are interleaved; speeds are ratios to the first row, medians. Writing goes shard by
shard in one thread, reading by runs of chunks (as the statistics read) in all there are.
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import photographs
import zarr
from common import THREADS, header
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from convergent.activations.from_stores import leaf_rows
from convergent.activations.recording import record
from convergent.running import stores
from convergent.running.stores import open_store

DEFAULT = {"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}
MB = 2**20


def blosc(name: str, shuffle: str) -> dict:
    return {"COMPRESSORS": (BloscCodec(cname=name, clevel=1, shuffle=shuffle), Crc32cCodec())}


# Constants of `stores`, settings of zarr, and what happens to the data first.
CHOICES: dict[str, tuple[dict, dict, str]] = {
    "as the pipeline does": ({}, {}, ""),
    "default reader and writer": ({}, DEFAULT, ""),
    "default, looks for empty chunks": ({}, {**DEFAULT, "array.write_empty_chunks": False}, ""),
    "zarrs, looks for empty chunks": ({}, {"array.write_empty_chunks": False}, ""),
    "float32": ({}, {}, "float32"),
    "unit first": ({}, {}, "unit first"),
    "not compressed": ({"COMPRESSORS": (Crc32cCodec(),)}, {}, ""),
    "zstd 1, crc32c alone": ({"COMPRESSORS": (ZstdCodec(level=1), Crc32cCodec())}, {}, ""),
    "zstd 3": ({"COMPRESSORS": (ZstdCodec(level=3, checksum=True), Crc32cCodec())}, {}, ""),
    "zstd 9": ({"COMPRESSORS": (ZstdCodec(level=9, checksum=True), Crc32cCodec())}, {}, ""),
    "zstd -1": ({"COMPRESSORS": (ZstdCodec(level=-1, checksum=True), Crc32cCodec())}, {}, ""),
    "blosc zstd 1, bytes shuffled": (blosc("zstd", "shuffle"), {}, ""),
    "blosc zstd 1, bits shuffled": (blosc("zstd", "bitshuffle"), {}, ""),
    "blosc lz4, bytes shuffled": (blosc("lz4", "shuffle"), {}, ""),
    "chunks of 1 MB": ({"CHUNK_BYTES": 1 * MB}, {}, ""),
    "chunks of 4 MB": ({"CHUNK_BYTES": 4 * MB}, {}, ""),
    "chunks of 8 MB": ({"CHUNK_BYTES": 8 * MB}, {}, ""),
    "shards of 8 MB": ({"SHARD_BYTES": 8 * MB}, {}, ""),
    "shards of 32 MB": ({"SHARD_BYTES": 32 * MB}, {}, ""),
    "shards of 64 MB": ({"SHARD_BYTES": 64 * MB}, {}, ""),
}


def arranged(data: np.ndarray, how: str) -> np.ndarray:
    if how == "unit first":
        return np.ascontiguousarray(np.moveaxis(data, -1, 1))
    return data.astype(how) if how else data


def measure(data: np.ndarray, constants: dict, settings: dict) -> tuple[int, float, float]:
    """Bytes stored, seconds written and read."""
    before = {name: getattr(stores, name) for name in constants}
    vars(stores).update(constants)
    try:
        with tempfile.TemporaryDirectory(dir=".") as folder, zarr.config.set(settings):
            group = zarr.open_group(folder, mode="w")
            array = stores.create(group, "a", data.shape, data.dtype, tuple("abcd"[: data.ndim]))
            start = time.perf_counter()
            for i in range(0, len(data), array.shards[0]):
                array[i : i + array.shards[0]] = data[i : i + array.shards[0]]
            written = time.perf_counter()
            rows = leaf_rows(array)
            with ThreadPoolExecutor(THREADS) as pool:
                parts = pool.map(lambda i: array[i : i + rows].shape, range(0, len(data), rows))
                assert sum(shape[0] for shape in parts) == len(data)
            return array.nbytes_stored(), written - start, time.perf_counter() - written
    finally:
        vars(stores).update(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--layer", default="conv2")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--photographs", help="folder of images; noise without")
    parser.add_argument("--steps", type=int, default=0, help="of training before recording")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    header()
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        store = options.store or Path(scratch, "a.zarr")
        if options.store is None:
            folder = options.photographs
            net = photographs.net(options.steps, folder)
            batches = photographs.batches(options.images, 64, folder)
            record(net, batches, [options.layer], store, image_index=np.arange(options.images))
        source = open_store(store)[options.layer]
        images = min(source.shape[0], max(1, 128 * MB * source.shape[0] // source.nbytes))
        data = source[:images]
    zeros = (data == 0).mean()
    print(f"{options.layer}: {data.shape} {data.dtype}, {zeros:.0%} zeros, {THREADS} threads")
    results = {name: [] for name in CHOICES}
    for _ in range(options.runs):
        for name, (constants, settings, how) in CHOICES.items():
            results[name].append(measure(arranged(data, how), constants, settings))
    base = next(iter(results.values()))
    _, write, read = (statistics.median(values) for values in zip(*base, strict=True))
    mb = data.nbytes / 1e6
    print(f"{mb:.0f} MB; the first row writes {mb / write:.0f} MB/s, reads {mb / read:.0f} MB/s")
    print(f"{'':34s} smaller than float16, speed of writing, of reading")
    for name, runs in results.items():
        speeds = [
            statistics.median(b[i] / r[i] for b, r in zip(base, runs, strict=True)) for i in (1, 2)
        ]
        print(f"{name:34s} {data.nbytes / runs[0][0]:5.2f} {speeds[0]:6.2f} {speeds[1]:6.2f}")


if __name__ == "__main__":
    main()
