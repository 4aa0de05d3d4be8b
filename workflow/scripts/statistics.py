from _job import device_of, run, scheduler_of


def main(snakemake):
    from convergent.activations.statistics import write_statistics

    params = snakemake.params
    with scheduler_of(snakemake) as scheduler:
        write_statistics(
            snakemake.input.activations,
            snakemake.output.store,
            params.layers,
            device=device_of(snakemake),
            scheduler=scheduler,
            workers=snakemake.threads,
            **params.options,
        )


if __name__ == "__main__":
    run(main, snakemake)
