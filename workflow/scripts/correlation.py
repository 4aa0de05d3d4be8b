from _job import device_of, run, scheduler_of


def main(snakemake):
    from convergent.activations.statistics import write_correlation

    params = snakemake.params
    with scheduler_of(snakemake) as scheduler:
        write_correlation(
            snakemake.input.a,
            snakemake.input.b,
            snakemake.output.store,
            params.layers,
            blocks=params.blocks,
            device=device_of(snakemake),
            scheduler=scheduler,
            workers=snakemake.threads,
        )


if __name__ == "__main__":
    run(main, snakemake)
