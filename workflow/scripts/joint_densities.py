from _job import device_of, run


def main(snakemake):
    import pandas as pd

    from convergent.measures import joint_densities
    from convergent.nets.marks import check_same_images
    from convergent.running.stores import open_store

    inputs, params = snakemake.input, snakemake.params
    pairs = joint_densities.shown_pairs(pd.read_csv(inputs.matching), params.layers)
    units = [
        {layer: rows[side].to_numpy() for layer, rows in pairs.items()}
        for side in ("unit", "partner")
    ]
    if params.activations["store"]:
        paths = (inputs.a, inputs.b)
        check_same_images({path: open_store(path) for path in paths}, other_views=True)
        stores = zip(paths, units, strict=True)
        values = [joint_densities.stored_values(*store) for store in stores]
    else:
        values = [
            observed(snakemake, net, weights, columns)
            for net, weights, columns in zip(
                params.nets, (inputs.weights_a, inputs.weights_b), units, strict=True
            )
        ]
    joint_densities.write_joint_densities(
        snakemake.output.store, pairs, *values, inputs.mutual_information
    )


def observed(snakemake, net, weights, units):
    from pathlib import Path

    from convergent.activations import from_nets
    from convergent.measures import joint_densities
    from convergent.nets import datasets, models

    params = snakemake.params
    device = device_of(snakemake)
    batches, index, classes = datasets.recorded_batches(
        dict(snakemake.input.items()),
        net["data"],
        Path(weights),
        params.activations["batch_size"],
        first=joint_densities.IMAGES,
        number=params.activations["images"],
        seed=params.seed,
        device=device,
    )
    return from_nets.observed_values(
        models.load(weights, net["net"], classes),
        batches,
        units,
        places=net["places"],
        image_index=index[: joint_densities.IMAGES],
        positions=params.activations["positions"],
        seed=params.seed,
        dtype=params.activations["dtype"],
        device=device,
    )


if __name__ == "__main__":
    run(main, snakemake)
