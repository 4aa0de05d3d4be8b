from _job import device_of, run, scheduler_of


def main(snakemake):
    from convergent.activations.statistics import write_statistics

    params, files, output = snakemake.params, snakemake.input, snakemake.output
    stores = [(files.activations, output.store, False)]
    if output.get("untrained"):
        stores.append((files.untrained, output.untrained, True))
    with scheduler_of(snakemake) as scheduler:
        for activations, store, untrained in stores:
            write_statistics(
                activations,
                store,
                params.layers,
                untrained=untrained,
                device=device_of(snakemake),
                scheduler=scheduler,
                workers=snakemake.threads,
                **params.options,
            )


if __name__ == "__main__":
    run(main, snakemake)
