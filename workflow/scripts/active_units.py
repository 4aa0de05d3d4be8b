from _job import run


def main(snakemake):
    from convergent.figures.sheets import tiles
    from convergent.figures.style import save
    from convergent.figures.units import active_units
    from convergent.running.stores import open_store

    nets, layer = snakemake.params.nets, snakemake.params.layer
    means = {
        net: open_store(path)[f"{layer}/mean"][...]
        for net, path in zip(nets, snakemake.input.statistics, strict=True)
    }
    pictures = tiles(nets, snakemake.input.units)
    save(active_units(means, layer, pictures), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
