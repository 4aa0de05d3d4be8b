"""A run of any size, made up, and its atlas: ``python tests/generated_run.py FOLDER``.

By default it has the paper's seven layers of 4,096 units each in ten nets. Real stores of two nets
are written by `planted`, with few units that correlate; the atlas of the other nets and pairs is
theirs under other names, since the page reads a file in the same time whatever it says.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import planted

from convergent.figures.atlas.writing import write_atlas

PAGE = sorted((Path(__file__).parents[1] / "workflow/atlas").glob("*"))
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")


def generate(folder, layers=LAYERS, units=4096, nets=10):
    """Write ``atlas/`` of a run with these layers, units of each, and number of nets.

    Returns
    -------
    path
        The atlas.
    """
    folder = Path(folder)
    names = [f"net{number + 1}" for number in range(nets)]
    two = names[:2]
    planted.write_run(folder, {layers[0]: units}, two, pictures={layers[0]: 16})
    of_nets, pairs = planted.stores(folder, two)
    write_atlas(
        folder / "atlas",
        PAGE,
        "generated",
        dict.fromkeys((*of_nets, *pairs), layers[:1]),
        of_nets,
        pairs,
        0.25,
        [f"class {n % 10}" for n in range(200)],
    )
    multiply(folder / "atlas", layers, names)
    return folder / "atlas"


def multiply(atlas, layers, names):
    """Give an atlas of one layer and two nets more of both, under other names."""
    run = json.loads((atlas / "data/run.json").read_text(encoding="utf-8"))
    first = run["layers"][0]["name"]
    a, b = run["nets"]
    about, of_pair = run["layers"][0]["nets"][a], run["layers"][0]["pairs"][f"{a}-{b}"]
    pairs = [f"{p}-{q}" for i, p in enumerate(names) for q in names[i + 1 :]]
    widen(atlas, first, [a, b], len(names))
    for layer in layers:
        for net in names:
            copy(atlas, f"{first}/{a}", f"{layer}/{net}")
            for path in (atlas / f"data/{first}/samples").glob(f"{a}-*.js"):
                number = path.stem.rpartition("-")[2]
                copy(atlas, f"{first}/samples/{path.stem}", f"{layer}/samples/{net}-{number}")
            (atlas / "pictures" / net).mkdir(parents=True, exist_ok=True)
            for path in (atlas / "pictures" / a).glob(f"{first}-*"):
                to = atlas / "pictures" / net / path.name.replace(first, layer, 1)
                if not to.exists():
                    shutil.copyfile(path, to)
        for pair in pairs:
            copy(atlas, f"{first}/{a}-{b}", f"{layer}/{pair}")
            copy(atlas, f"{first}/plane/{a}-{b}", f"{layer}/plane/{pair}")
        # Matrices are large: only one pair has them.
        for path in (atlas / f"data/{first}").glob(f"{a}-{b}-*.js"):
            copy(atlas, f"{first}/{path.stem}", f"{layer}/{path.stem}")
    run["nets"], run["pairs"] = names, pairs
    run["colors"] |= {net: run["colors"][(a, b)[n % 2]] for n, net in enumerate(names)}
    run["facts"] = {"data": "made up", "images": 200, "nets": {}}
    run["layers"] = [
        {
            "name": layer,
            "nets": dict.fromkeys(names, about),
            "pairs": dict.fromkeys(pairs, of_pair),
            "core": [],
        }
        for layer in layers
    ]
    text = json.dumps(run)
    (atlas / "data/run.json").write_text(text, encoding="utf-8")
    (atlas / "data/run.js").write_text(f'receive("run", {text});\n', encoding="utf-8")


def widen(atlas, layer, nets, number):
    """Repeat the partners of units in two nets until there are some for each of `number` nets."""
    from convergent.figures.atlas.files import read, write_arrays

    for net in nets:
        arrays = read(atlas / f"data/{layer}/{net}.js")
        other = 1 - nets.index(net)
        for name in ("best", "best_value", "mutual"):
            arrays[name] = np.repeat(arrays[name][:, other : other + 1], number, axis=1)
        write_arrays(atlas, f"{layer}/{net}", arrays, plain=False)


def copy(atlas, name, other):
    """Copy a script of data under another name."""
    source, target = (atlas / f"data/{each}.js" for each in (name, other))
    if source == target:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    text = source.read_text(encoding="utf-8")
    target.write_text(text.replace(f'"{name}"', f'"{other}"', 1), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--units", type=int, default=4096)
    parser.add_argument("--nets", type=int, default=10)
    parser.add_argument("--layers", type=int, default=len(LAYERS))
    chosen = parser.parse_args()
    names = [*LAYERS, *(f"more{n}" for n in range(100))][: chosen.layers]
    print(generate(chosen.folder, names, chosen.units, chosen.nets))
