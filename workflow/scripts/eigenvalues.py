from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.clusters import eigenvalues
    from convergent.figures.style import save

    table, layers = map(pd.read_csv, (snakemake.input.eigenvalues, snakemake.input.stability))
    chosen = {row.layer: (row.k, row.components) for row in layers.itertuples()}
    automatic = {layer: k == "auto" for layer, k in snakemake.params.clusters.items()}
    save(eigenvalues(table, chosen, automatic), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
