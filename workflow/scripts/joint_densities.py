from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.statistics import write_joint_densities

    inputs = snakemake.input
    write_joint_densities(
        snakemake.output.store,
        snakemake.params.layers,
        inputs.a,
        inputs.b,
        pd.read_csv(inputs.matching),
        inputs.mutual_information,
    )


if __name__ == "__main__":
    run(main, snakemake)
