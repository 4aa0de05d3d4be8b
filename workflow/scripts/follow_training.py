from _job import run


def main(snakemake):
    from convergent.activations.side_by_side import observed, read_accuracy
    from convergent.inference.dynamics import dynamics_table
    from convergent.inference.settling import settling
    from convergent.running.files import writing

    params, output = snakemake.params, snakemake.output
    folders = dict(zip(params.epochs, snakemake.input.epochs, strict=True))
    chance = {"seed": params.seed, "level": params.level}
    dynamics = dynamics_table(
        observed(folders, params.layers),
        read_accuracy(folders),
        draws=params.rotations,
        **chance,
    )
    units, shares = settling(observed(folders, params.layers), draws=params.draws, **chance)
    for table, file in (
        (dynamics, output.dynamics),
        (units, output.units),
        (shares, output.settling),
    ):
        with writing(file) as path:
            table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
