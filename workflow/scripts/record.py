from _job import device_of, run


def main(snakemake):
    import torch

    from convergent import activations, datasets, models
    from convergent.progress import progress

    params = snakemake.params
    torch.set_num_threads(snakemake.threads)
    device = device_of(snakemake)
    options = dict(params.activations)
    images, index, classes = datasets.recorded(
        dict(snakemake.input.items()),
        params.data,
        number=options.pop("images"),
        seed=params.seed,
    )
    batches = images.batches(
        options.pop("batch_size"),
        params.data["mean"],
        params.data["std"],
        workers=snakemake.threads - 1,
        device=device,
    )
    activations.record(
        models.load(snakemake.input.weights, params.model, params.data, classes),
        progress(batches, len(index), snakemake.wildcards.net),
        params.layers,
        snakemake.output.store,
        image_index=index,
        device=device,
        seed=params.seed,
        **options,
    )


if __name__ == "__main__":
    run(main, snakemake)
