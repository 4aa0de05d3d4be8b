from _job import run


def main(snakemake):
    from convergent.statistics import write_correlation

    write_correlation(
        snakemake.input.a,
        snakemake.input.b,
        snakemake.output.store,
        snakemake.params.layers,
        threads=snakemake.threads,
        **snakemake.params.options,
    )


if __name__ == "__main__":
    run(main, snakemake)
