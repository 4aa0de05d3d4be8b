from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.tables import measure_agreement
    from convergent.running.stores import open_store, writing

    correlation, information = (
        {layer: store[f"{layer}/{measure}"][...] for layer in snakemake.params.layers}
        for measure in ("correlation", "mutual_information")
        for store in [open_store(snakemake.input[measure])]
    )
    matches = pd.read_csv(snakemake.input.matching)
    with writing(snakemake.output.table) as path:
        measure_agreement(matches, correlation, information, snakemake.wildcards.pair).to_csv(
            path, index=False
        )


if __name__ == "__main__":
    run(main, snakemake)
