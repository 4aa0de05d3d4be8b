from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.one_to_one import matched_values
    from convergent.figures.style import save

    params = snakemake.params
    matches = pd.read_csv(snakemake.input.matching).query("measure == @params.measure")
    label = {"mutual_information": "mutual information, nats"}.get(params.measure, params.measure)
    nets = params.pair.split("-")
    save(matched_values(matches, params.layers, nets, label), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
