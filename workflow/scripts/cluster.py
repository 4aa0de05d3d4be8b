from _job import run


def main(snakemake):
    from convergent.alignment.cluster_tables import cluster_tables
    from convergent.running.files import writing

    inputs, params = snakemake.input, snakemake.params
    tables = cluster_tables(
        snakemake.wildcards.pair,
        params.clusters,
        params.threshold,
        params.alpha,
        params.seed,
        inputs.a,
        inputs.b,
        inputs.correlation,
    )
    for name, output in snakemake.output.items():
        with writing(output) as path:
            getattr(tables, name).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
