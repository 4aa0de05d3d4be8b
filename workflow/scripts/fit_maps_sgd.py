from _job import run


def main(snakemake):
    from convergent.alignment.sparse_maps import write_sgd_mapping

    inputs, params = snakemake.input, snakemake.params
    write_sgd_mapping(
        snakemake.output.store,
        params.layers,
        params.decays,
        (inputs.a, inputs.b),
        (inputs.statistics_a, inputs.statistics_b),
        inputs.correlation,
        iterations=params.iterations,
        seed=params.seed,
        threads=snakemake.threads,
    )


if __name__ == "__main__":
    run(main, snakemake)
