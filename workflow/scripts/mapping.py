from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.tables import mapping_table
    from convergent.running.files import writing

    stores = {"exact": snakemake.input.exact, "sgd": snakemake.input.sgd}
    tables = [
        mapping_table(store, snakemake.params.layers, solver)
        for solver, store in stores.items()
        if store
    ]
    with writing(snakemake.output.table) as path:
        pd.concat(tables).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
