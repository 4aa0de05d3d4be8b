from _job import run


def main(snakemake):
    from convergent import config
    from convergent.nets import models, shapes
    from convergent.units.receptive_fields import sides

    options = dict(snakemake.params.net)
    view = (options["inputs"], options["size"], options["size"])
    found = shapes.layer_shapes(lambda: models.build(**options), view, sides)
    run_configuration = config.load(snakemake.config["origin"]["job"]["configuration"])
    config.check_shapes(run_configuration, found.layers)
    shapes.write_shapes(snakemake.output.layers, found, options)


if __name__ == "__main__":
    run(main, snakemake)
