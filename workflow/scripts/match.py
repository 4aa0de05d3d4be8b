from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.matching import match_table
    from convergent.stores import open_store, writing

    tables = []
    for measure in ("correlation", "mutual_information"):
        store = open_store(snakemake.input[measure])
        tables += [
            match_table(store[f"{layer}/{measure}"][...], layer, measure)
            for layer in snakemake.params.layers
        ]
    with writing(snakemake.output.matching) as path:
        pd.concat(tables).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
