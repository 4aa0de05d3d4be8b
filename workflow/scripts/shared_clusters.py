from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.clusters import shared_clusters
    from convergent.figures.sheets import tiles
    from convergent.figures.style import save

    params, nets = snakemake.params, snakemake.params.pair.split("-")
    tables = (pd.read_csv(snakemake.input[name]) for name in ("clusters", "similarity"))
    clusters, similarity = (table[table["layer"] == params.layer] for table in tables)
    pictures = tiles(nets, (snakemake.input.a, snakemake.input.b))
    figure = shared_clusters(
        clusters,
        similarity,
        lambda net, unit: pictures(net, params.layer, unit, params.kind),
        nets,
        params.layer,
        params.number,
    )
    save(figure, *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
