from _job import run


def main(snakemake):
    from convergent.clustering import drawn_map
    from convergent.figures import save
    from convergent.mapping_figures import learned_map
    from convergent.stores import open_store

    params = snakemake.params
    group = open_store(snakemake.input.mapping)[f"{params.layer}/ab"]
    decay, weights, _ = drawn_map(group, params.penalty)
    save(learned_map(weights, params.pair.split("-"), params.layer, decay), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
