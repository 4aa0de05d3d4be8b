from _job import run


def main(snakemake):
    from pathlib import Path

    import pandas as pd

    from convergent.figures.atlas import write_atlas

    params, inputs = snakemake.params, snakemake.input
    images = pd.read_csv(inputs.listing, dtype=str, keep_default_na=False)
    images = images.query("split == 'validation'")
    nets = [
        {"statistics": statistics, "units": units}
        for statistics, units in zip(inputs.statistics, inputs.units, strict=True)
    ]
    kinds = (*params.measures, "mapping", "matching", "clusters", "significance")
    pairs = [
        dict(zip(kinds, paths, strict=True))
        for paths in zip(*(inputs[kind] for kind in kinds), strict=True)
    ]
    named = dict(zip(params.pairs, pairs, strict=True))
    for pair, path in zip(params.merged, inputs.merge, strict=True):
        named[pair]["merge"] = path
    write_atlas(
        snakemake.output.folder,
        [Path(snakemake.scriptdir).with_name("atlas") / name for name in params.page],
        params.run,
        params.layers,
        dict(zip(params.nets, nets, strict=True)),
        named,
        params.penalty,
        images.sort_values("image", key=pd.to_numeric)["class"],
        params.level,
    )


if __name__ == "__main__":
    run(main, snakemake)
