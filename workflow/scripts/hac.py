from _job import run


def main(snakemake):
    from convergent.alignment.clustering import write_hac

    params = snakemake.params
    write_hac(snakemake.output.store, params.layers, snakemake.input.mapping, params.penalty)


if __name__ == "__main__":
    run(main, snakemake)
