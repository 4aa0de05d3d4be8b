from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.one_to_one import correlation_matrices
    from convergent.figures.style import save
    from convergent.measures.matching import partners
    from convergent.running.stores import open_store

    inputs, layer = snakemake.input, snakemake.params.layer
    within_a, within_b, between = (
        open_store(store)[f"{layer}/correlation"][...]
        for store in (inputs.a, inputs.b, inputs.correlation)
    )
    partner = partners(pd.read_csv(inputs.matching), layer, units=len(between))
    nets = snakemake.params.pair.split("-")
    save(correlation_matrices(within_a, within_b, between, partner, nets, layer), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
