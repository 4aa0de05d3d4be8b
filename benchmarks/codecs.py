"""Size, write and read speed of activations under different compressors.

    uv run python benchmarks/codecs.py results/digits/activations/net1.zarr conv2

Reads up to 64 MB of a recorded layer, writes them with each compressor in the chunks and shards
that the pipeline uses, and reads them back chunk by chunk; medians of interleaved runs.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from convergent.activations import open_store
from convergent.stores import create, read

COMPRESSORS = {
    "none": (),
    "zstd 1": (ZstdCodec(level=1),),
    "zstd 3": (ZstdCodec(level=3),),
    "zstd 9": (ZstdCodec(level=9),),
    "blosc zstd 1, shuffle": (BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),),
    "blosc zstd 1, bitshuffle": (BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),),
    "blosc lz4 1, shuffle": (BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"),),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("layer")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    source = open_store(options.store)[options.layer]
    images = min(source.shape[0], max(1, 64 * 2**20 * source.shape[0] // source.nbytes))
    data = read(source, 0, images)
    zeros = (data == 0).mean()
    print(
        f"{options.layer}: {data.shape} {data.dtype}, {zeros:.0%} zeros, {data.nbytes / 1e6:.0f} MB"
    )
    results = {name: ([], []) for name in COMPRESSORS}
    sizes = {}
    for _ in range(options.runs):
        for name, compressors in COMPRESSORS.items():
            with tempfile.TemporaryDirectory() as folder:
                group = zarr.open_group(folder, mode="w")
                names = source.metadata.dimension_names
                like = create(group, "like", data.shape, data.dtype, names)
                array = group.create_array(
                    "data",
                    shape=data.shape,
                    dtype=data.dtype,
                    chunks=like.chunks,
                    shards=like.shards,
                    compressors=(*compressors, Crc32cCodec()),
                )
                start = time.perf_counter()
                array[...] = data
                written = time.perf_counter()
                for i in range(0, len(data), array.chunks[0]):
                    array[i : i + array.chunks[0]]
                results[name][0].append(data.nbytes / 1e6 / (written - start))
                results[name][1].append(data.nbytes / 1e6 / (time.perf_counter() - written))
                files = Path(folder, "data").rglob("*")
                sizes[name] = sum(f.stat().st_size for f in files if f.is_file())
    for name, (write, read_) in results.items():
        print(
            f"{name:26s} {data.nbytes / sizes[name]:5.2f} x smaller  "
            f"write {statistics.median(write):5.0f} MB/s  read {statistics.median(read_):5.0f} MB/s"
        )


if __name__ == "__main__":
    main()
