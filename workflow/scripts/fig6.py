from _job import run


def main(snakemake):
    from convergent.alignment.sparse_maps import map_at_penalty
    from convergent.figures.sheets import tiles
    from convergent.figures.sparse_maps import learned_map
    from convergent.figures.style import save
    from convergent.running.stores import open_store

    params = snakemake.params
    group = open_store(snakemake.input.mapping)[f"{params.layer}/ab"]
    decay, weights, *_ = map_at_penalty(group, params.penalty)
    nets = params.pair.split("-")
    pictures = tiles(nets, (snakemake.input.units_a, snakemake.input.units_b))
    figure = learned_map(
        weights, nets, params.layer, decay, lambda net, *of: pictures(net, params.layer, *of)
    )
    save(figure, *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
