from _job import run


def main(snakemake):
    from convergent.alignment.clustering import drawn_map
    from convergent.figures.sparse_maps import mapping_layers
    from convergent.figures.style import save
    from convergent.running.stores import open_store

    params, store = snakemake.params, open_store(snakemake.input.mapping)
    maps = {layer: drawn_map(store[f"{layer}/ab"], params.penalty) for layer in params.layers}
    save(mapping_layers(maps, params.pair.split("-")), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
