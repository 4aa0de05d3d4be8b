from _job import run


def main(snakemake):
    from convergent.inference.map_nulls import significance_of_maps
    from convergent.inference.similarity import Stores
    from convergent.running.files import writing

    params = snakemake.params
    table = significance_of_maps(
        params.clusters,
        Stores.of_job(snakemake.input),
        decays=params.decays,
        penalty=params.penalty,
        threshold=params.threshold,
        alpha=params.alpha,
        cluster_seed=params.statistics_seed,
        nulls=params.nulls,
        threads=snakemake.threads,
    )
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
