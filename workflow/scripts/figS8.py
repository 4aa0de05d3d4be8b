from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.clusters import branches
    from convergent.figures.sheets import tiles
    from convergent.figures.style import save

    layer, nets = snakemake.params.layer, snakemake.params.pair.split("-")
    clusters = pd.read_csv(snakemake.input.clusters, dtype={"path": str})
    similarity = pd.read_csv(snakemake.input.similarity)
    clusters, similarity = (t[t["layer"] == layer] for t in (clusters, similarity))
    pictures = tiles(nets, (snakemake.input.a, snakemake.input.b))
    figure = branches(
        clusters, similarity, lambda net, unit: pictures(net, layer, unit), nets, layer
    )
    save(figure, *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
