from _job import run


def main(snakemake):
    from convergent import config
    from convergent.nets import models, shapes
    from convergent.units.receptive_fields import sides

    options = dict(snakemake.params.net)
    view = (options["inputs"], options["size"], options["size"])
    found = shapes.layer_shapes(lambda: models.build(**options), view, sides)
    config.check_shapes(config.load(snakemake.config), found.layers)
    shapes.write_shapes(snakemake.output.layers, found, options)


if __name__ == "__main__":
    run(main, snakemake)
