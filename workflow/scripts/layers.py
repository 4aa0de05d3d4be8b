from _job import run


def main(snakemake):
    from pathlib import Path

    from convergent import config
    from convergent.nets.shapes import read_shapes, write_shapes
    from convergent.units.receptive_fields import net_shapes

    params, job = snakemake.params, snakemake.config["origin"]["job"]
    run_configuration = config.load(job["configuration"], config.default_layers)
    # Those of the other nets, as far as they are known.
    shapes = {}
    for name, node in run_configuration.nodes.items():
        file = Path(job["folder"], "nets", name, "layers.csv")
        found = read_shapes(file, {**node.form(), "places": node.places})
        if found:
            shapes[name] = found.layers
    found = net_shapes(params.net, params.places)
    net = snakemake.wildcards.net
    config.check_shapes(run_configuration, net, {**shapes, net: found.layers})
    write_shapes(snakemake.output.layers, found, {**params.net, "places": params.places})


if __name__ == "__main__":
    run(main, snakemake)
