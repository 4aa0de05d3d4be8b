from _job import run


def main(snakemake):
    from convergent.devices import choose_device
    from convergent.statistics import write_correlation

    params = snakemake.params
    write_correlation(
        snakemake.input.a,
        snakemake.input.b,
        snakemake.output.store,
        params.layers,
        blocks=params.blocks,
        device=choose_device(params.device),
        scheduler=snakemake.resources.scheduler,
        workers=snakemake.threads,
    )


if __name__ == "__main__":
    run(main, snakemake)
