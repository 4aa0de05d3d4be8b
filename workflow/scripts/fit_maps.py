from _job import run


def main(snakemake):
    from convergent.alignment.sparse_maps import write_mapping

    inputs, params = snakemake.input, snakemake.params
    write_mapping(
        snakemake.output.store,
        params.layers,
        params.decays,
        inputs.a,
        inputs.b,
        inputs.correlation,
        threads=snakemake.threads,
    )


if __name__ == "__main__":
    run(main, snakemake)
