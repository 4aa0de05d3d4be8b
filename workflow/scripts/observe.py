from _job import device_of, run


def main(snakemake):
    import torch

    from convergent.activations import from_nets
    from convergent.nets import datasets, models

    params, outputs = snakemake.params, snakemake.output
    torch.set_num_threads(snakemake.threads)
    device = device_of(snakemake)
    options = dict(params.activations)
    batches, index, classes = datasets.recorded_batches(
        dict(snakemake.input.items()),
        params.data,
        "all nets",
        # All nets together process as many images at a time as one net does in recording.
        max(1, options.pop("batch_size") // len(params.nets)),
        number=options.pop("images"),
        seed=params.statistics["seed"],
        workers=snakemake.threads - 1,
        device=device,
    )
    from_nets.observe(
        {
            name: models.load(weights, params.model, params.data, classes)
            for name, weights in zip(params.nets, snakemake.input.weights, strict=True)
        },
        batches,
        params.layers,
        dict(zip(params.nets, outputs.statistics, strict=True)),
        {
            tuple(pair.split("-")): path
            for pair, path in zip(params.pairs, outputs.correlations, strict=True)
        },
        image_index=index,
        device=device,
        threads=snakemake.threads,
        **options,
        **params.statistics,
    )


if __name__ == "__main__":
    run(main, snakemake)
