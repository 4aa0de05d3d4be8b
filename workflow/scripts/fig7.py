from _job import run


def main(snakemake):
    from convergent.figures import save
    from convergent.mapping_figures import cluster_tree
    from convergent.stores import open_store

    params, store = snakemake.params, open_store(snakemake.input.hac)
    group, mapping = store[params.layer], open_store(snakemake.input.mapping)
    decay = group.attrs["decay"]
    weights = mapping[f"{params.layer}/ab/weights"][group.attrs["step"]].T
    nets = params.pair.split("-")
    save(cluster_tree(weights, group["linkage"][...], nets, params.layer, decay), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
