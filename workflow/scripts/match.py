from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.matching import match_table
    from convergent.stores import open_store, writing

    store = open_store(snakemake.input.correlation)
    layers = snakemake.params.layers
    tables = [
        match_table(store[f"{layer}/correlation"][...], layer, "correlation") for layer in layers
    ]
    with writing(snakemake.output.matching) as path:
        pd.concat(tables).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
