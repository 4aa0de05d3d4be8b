from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.tables import by_layer
    from convergent.running.stores import writing

    with writing(snakemake.output.table) as path:
        by_layer(pd.concat(map(pd.read_csv, snakemake.input.tables))).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
