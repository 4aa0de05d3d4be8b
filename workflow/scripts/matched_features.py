from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.sheets import tiles
    from convergent.figures.style import save
    from convergent.figures.units import matched_features
    from convergent.measures.matching import ranking
    from convergent.measures.registry import measure
    from convergent.running.stores import open_store

    params, nets = snakemake.params, snakemake.params.pair.split("-")
    matches = pd.read_csv(snakemake.input.matching)
    rankings = {layer: ranking(matches, layer, params.measure) for layer in params.layers}
    seen = open_store(snakemake.input.a)
    units = {layer: seen[f"{layer}/image"].shape[0] for layer in params.layers}
    pictures = tiles(nets, (snakemake.input.a, snakemake.input.b))
    label = measure(params.measure).label
    save(matched_features(rankings, units, pictures, nets, label), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
