from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.clustering import drawn_step
    from convergent.figures import save
    from convergent.mapping_figures import mapping_layers
    from convergent.stores import open_store

    params, store = snakemake.params, open_store(snakemake.input.mapping)
    maps = {}
    for layer in params.layers:
        group = store[f"{layer}/ab"]
        step = drawn_step(group, params.penalty)
        maps[layer] = float(group["decay"][step]), group["weights"][step]
    table = pd.read_csv(snakemake.input.table).query("direction == 'ab' and solver == 'exact'")
    losses = {
        layer: rows.loc[(rows["decay"] - maps[layer][0]).abs().idxmin(), "loss"]
        for layer, rows in table.groupby("layer")
    }
    save(mapping_layers(maps, losses, params.pair.split("-")), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
