from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.one_to_one import mean_by_layer
    from convergent.figures.style import save

    matches = {
        pair: pd.read_csv(path).query("measure == 'correlation'")
        for pair, path in zip(snakemake.params.pairs, snakemake.input.matches, strict=True)
    }
    save(mean_by_layer(matches, snakemake.params.layers), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
