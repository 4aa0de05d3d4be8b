from _job import run


def main(snakemake):
    from convergent.clustering import drawn_map
    from convergent.figures import save
    from convergent.mapping_figures import mapping_layers
    from convergent.stores import open_store

    params, store = snakemake.params, open_store(snakemake.input.mapping)
    maps = {layer: drawn_map(store[f"{layer}/ab"], params.penalty) for layer in params.layers}
    save(mapping_layers(maps, params.pair.split("-")), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
