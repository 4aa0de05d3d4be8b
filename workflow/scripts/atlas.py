from _job import run


def main(snakemake):
    from pathlib import Path

    import pandas as pd

    from convergent.figures.atlas import writing
    from convergent.figures.atlas.pictures import views_of_nets

    params, inputs, folder = snakemake.params, snakemake.input, snakemake.output.folder
    images = pd.read_csv(inputs.listing, dtype=str, keep_default_na=False)
    images = images.query("split == 'validation'")
    nets = {
        net: {"statistics": statistics, "units": units}
        for net, statistics, units in zip(params.nets, inputs.statistics, inputs.units, strict=True)
    }
    for net, path in zip(params.evaluated, inputs.evaluation, strict=True):
        nets[net]["evaluation"] = path
    kinds = (*params.measures, *params.kinds)
    pairs = {
        pair: dict(zip(kinds, paths, strict=True))
        for pair, *paths in zip(params.pairs, *(inputs[kind] for kind in kinds), strict=True)
    }
    for pair, path in zip(params.merged, inputs.merge, strict=True):
        pairs[pair]["merge"] = path
    # An .npz file of pixels is there unless images are files.
    files = {"listing": inputs.listing} | dict(zip(["pixels"], inputs.pixels, strict=False))
    code = snakemake.config["origin"]["job"]["code"]
    writing.write_atlas(
        folder,
        [Path(snakemake.scriptdir).with_name("atlas") / name for name in params.page],
        params.run,
        params.layers,
        nets,
        pairs,
        params.penalty,
        images.sort_values("image", key=pd.to_numeric)["class"],
        params.level,
        writing.Extras(
            writing.facts_of_run(params.source, params.images or len(images), code, folder),
            views_of_nets(files, params.data, params.images, params.seed),
            writing.observed_epochs(folder),
        ),
    )


if __name__ == "__main__":
    run(main, snakemake)
