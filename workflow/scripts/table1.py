from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.sparse_maps import loss_table
    from convergent.figures.style import save
    from convergent.figures.tables import table1
    from convergent.running.stores import open_store, writing

    params = snakemake.params
    mappings = dict(zip(params.pairs, map(pd.read_csv, snakemake.input.mappings), strict=True))
    dead = {
        layer: (int(group["dead"][...].sum()), group["dead"].shape[0])
        for layer, group in open_store(snakemake.input.statistics).groups()
    }
    table = table1(mappings, params.pair, dead)
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)
    save(loss_table(table), snakemake.output.png, snakemake.output.pdf)


if __name__ == "__main__":
    run(main, snakemake)
