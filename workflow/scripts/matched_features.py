from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures import save
    from convergent.matching import ranking
    from convergent.pictures import tiles
    from convergent.stores import open_store
    from convergent.unit_figures import matched_features

    params, nets = snakemake.params, snakemake.params.pair.split("-")
    matches = pd.read_csv(snakemake.input.matching)
    rankings = {layer: ranking(matches, layer, params.measure) for layer in params.layers}
    seen = open_store(snakemake.input.a)
    units = {layer: seen[f"{layer}/image"].shape[0] for layer in params.layers}
    pictures = tiles(nets, (snakemake.input.a, snakemake.input.b))
    label = params.measure.replace("_", " ")
    save(matched_features(rankings, units, pictures, nets, label), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
