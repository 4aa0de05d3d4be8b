from _job import run


def main(snakemake):
    from convergent.figures import save
    from convergent.pictures import tiles
    from convergent.stores import open_store
    from convergent.unit_figures import active_units

    nets, layer = snakemake.params.nets, snakemake.params.layer
    means = {
        net: open_store(path)[f"{layer}/mean"][...]
        for net, path in zip(nets, snakemake.input.statistics, strict=True)
    }
    pictures = tiles(nets, snakemake.input.units)
    save(active_units(means, layer, pictures), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
