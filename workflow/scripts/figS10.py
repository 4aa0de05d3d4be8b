from _job import run


def main(snakemake):
    from convergent.figures.one_to_one import mean_activations
    from convergent.figures.style import save
    from convergent.running.stores import open_store

    params = snakemake.params
    means = {
        net: {layer: group["mean"][...] for layer, group in store.groups()}
        for net, store in zip(params.nets, map(open_store, snakemake.input.statistics), strict=True)
    }
    save(mean_activations(means, params.layers, markers=["conv1"]), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
