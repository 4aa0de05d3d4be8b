from _job import run


def main(snakemake):
    from convergent import config
    from convergent.nets.shapes import write_shapes
    from convergent.units.receptive_fields import net_shapes

    options = dict(snakemake.params.net)
    found = net_shapes(options)
    run_configuration = config.load(snakemake.config["origin"]["job"]["configuration"])
    config.check_shapes(run_configuration, found.layers)
    write_shapes(snakemake.output.layers, found, options)


if __name__ == "__main__":
    run(main, snakemake)
