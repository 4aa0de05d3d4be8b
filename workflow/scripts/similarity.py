from _job import run


def main(snakemake):
    from convergent.inference.similarity import similarity_table
    from convergent.measures.registry import measure
    from convergent.running.stores import writing

    stores = snakemake.input
    measures = [measure(name) for name in snakemake.params.measures]
    table = similarity_table(
        measures, snakemake.params.layers, stores.a, stores.b, stores.correlation
    )
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
