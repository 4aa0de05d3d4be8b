from _job import device_of, run


def main(snakemake):
    import torch

    from convergent.nets import datasets, models
    from convergent.units import pictures

    params = snakemake.params
    torch.set_num_threads(snakemake.threads)
    images, index, classes = datasets.recorded(
        dict(snakemake.input.items()),
        params.data,
        number=params.images,
        seed=params.seed,
    )
    pictures.write_units(
        snakemake.output.store,
        params.layers,
        snakemake.input.statistics,
        models.load(snakemake.input.weights, params.net, classes),
        images,
        index,
        params.data,
        pictures=params.pictures,
        places=params.places,
        device=device_of(snakemake),
    )


if __name__ == "__main__":
    run(main, snakemake)
