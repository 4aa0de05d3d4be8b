from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.tables import accuracy
    from convergent.running.stores import writing

    seeds = snakemake.params.seeds
    histories = dict(zip(seeds, map(pd.read_csv, snakemake.input.histories), strict=True))
    with writing(snakemake.output.table) as path:
        accuracy(histories, seeds).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
