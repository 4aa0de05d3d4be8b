from _job import run


def main(snakemake):
    from convergent.alignment.cluster_tables import cluster_tables
    from convergent.running.stores import writing

    params, stores = snakemake.params, snakemake.input
    tables = cluster_tables(
        snakemake.wildcards.pair,
        params.clusters,
        params.threshold,
        params.alpha,
        params.seed,
        stores.a,
        stores.b,
        stores.correlation,
    )
    for table, output in zip(tables, snakemake.output, strict=True):
        with writing(output) as path:
            table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
