from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.measures.matching import match_table
    from convergent.running.progress import progress
    from convergent.running.stores import open_store, writing

    tables = []
    for measure in snakemake.params.measures:
        store = open_store(snakemake.input[measure])
        arrays = {layer: store[f"{layer}/{measure}"] for layer in snakemake.params.layers}
        name = f"{snakemake.wildcards.pair} by {measure}"
        for layer in progress(arrays, name, "pair", lambda layer, of=arrays: of[layer].size):
            tables.append(match_table(arrays[layer][...], layer, measure))
    with writing(snakemake.output.matching) as path:
        pd.concat(tables).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
