from _job import device_of, run, scheduler_of


def main(snakemake):
    from convergent.activations.statistics import write_correlation

    params, files, output = snakemake.params, snakemake.input, snakemake.output
    beside = {}
    if output.get("controls"):
        untrained = files.untrained_a, files.untrained_b
        beside = {"controls": output.controls, "untrained": untrained}
    with scheduler_of(snakemake) as scheduler:
        write_correlation(
            files.a,
            files.b,
            output.store,
            params.layers,
            blocks=params.blocks,
            other_views=params.other_views,
            device=device_of(snakemake),
            scheduler=scheduler,
            workers=snakemake.threads,
            **beside,
        )


if __name__ == "__main__":
    run(main, snakemake)
