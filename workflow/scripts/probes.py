from _job import run


def main(snakemake):
    from convergent.activations.side_by_side import observed, read_accuracy
    from convergent.inference.probes import probe_table
    from convergent.running.files import writing

    params = snakemake.params
    folders = dict(zip(params.probes, snakemake.input.probes, strict=True))
    table = probe_table(
        {probe: observed({0: folder}, params.layers) for probe, folder in folders.items()},
        read_accuracy(folders),
        draws=params.draws,
        seed=params.seed,
        level=params.level,
    )
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
