from _job import run


def main(snakemake):
    from convergent.alignment.sparse_maps import map_at_penalty
    from convergent.figures.sheets import tiles
    from convergent.figures.sparse_maps import cluster_tree
    from convergent.figures.style import save
    from convergent.running.stores import open_store

    layer, nets = snakemake.params.layer, snakemake.params.pair.split("-")
    mapping, clusters = open_store(snakemake.input.mapping), open_store(snakemake.input.hac)
    decay, weights, *_ = map_at_penalty(mapping[f"{layer}/ab"], snakemake.params.penalty)
    tree = clusters[f"{layer}/linkage"][...]
    pictures = tiles(nets, (snakemake.input.units_a, snakemake.input.units_b))
    figure = cluster_tree(
        weights.T, tree, nets, layer, decay, lambda net, *of: pictures(net, layer, *of)
    )
    save(figure, *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
