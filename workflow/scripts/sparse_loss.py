from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.sparse_maps import sparse_loss
    from convergent.figures.style import save

    params = snakemake.params
    table = pd.read_csv(snakemake.input.table)
    save(sparse_loss(table, params.layers, params.pair.split("-")), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
