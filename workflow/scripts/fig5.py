from _job import run


def main(snakemake):
    from convergent.alignment.sparse_maps import map_at_penalty
    from convergent.figures.sparse_maps import mapping_layers
    from convergent.figures.style import save
    from convergent.running.stores import open_store

    params, store = snakemake.params, open_store(snakemake.input.mapping)
    maps = {}
    for layer in params.layers:
        decay, weights, loss, _ = map_at_penalty(store[f"{layer}/ab"], params.penalty)
        maps[layer] = decay, weights, float(loss.mean())
    save(mapping_layers(maps, params.pair.split("-")), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
