from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.one_to_one import matched_values
    from convergent.figures.style import save
    from convergent.measures.registry import measure

    params = snakemake.params
    matches = pd.read_csv(snakemake.input.matching).query("measure == @params.measure")
    nets = params.pair.split("-")
    drawn = matched_values(matches, params.layers, nets, measure(params.measure))
    save(drawn, *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
