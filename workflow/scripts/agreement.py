from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.tables import measure_agreement
    from convergent.running.stores import open_store, writing

    matrices = {}
    for measure in snakemake.params.measures:
        store = open_store(snakemake.input[measure])
        layers = snakemake.params.layers
        matrices[measure] = {layer: store[f"{layer}/{measure}"][...] for layer in layers}
    matches = pd.read_csv(snakemake.input.matching)
    table = measure_agreement(matches, matrices, snakemake.wildcards.pair)
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
