from _job import run


def main(snakemake):
    from convergent.devices import choose_device
    from convergent.statistics import write_statistics

    params = snakemake.params
    write_statistics(
        snakemake.input.activations,
        snakemake.output.store,
        params.layers,
        device=choose_device(params.device),
        scheduler=snakemake.resources.scheduler,
        workers=snakemake.threads,
        **params.options,
    )


if __name__ == "__main__":
    run(main, snakemake)
