from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures import matched_values, save

    matches = pd.read_csv(snakemake.input.matching).query("measure == 'correlation'")
    nets = snakemake.params.pair.split("-")
    save(matched_values(matches, snakemake.params.layers, nets), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
