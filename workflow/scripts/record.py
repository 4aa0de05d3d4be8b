from _job import device_of, run


def main(snakemake):
    from functools import partial
    from pathlib import Path

    import torch

    from convergent.activations import recording
    from convergent.nets import datasets, models, training

    params, output = snakemake.params, snakemake.output
    torch.set_num_threads(snakemake.threads)
    device = device_of(snakemake)
    options = dict(params.activations)
    batches, index, classes = datasets.recorded_batches(
        dict(snakemake.input.items()),
        params.data,
        Path(output.store),
        options.pop("batch_size"),
        number=options.pop("images"),
        seed=params.seed,
        workers=snakemake.threads - 1,
        device=device,
    )
    beside = {}
    if output.get("untrained"):
        build = partial(models.build, **models.options(params.net, classes))
        beside[output.untrained] = training.untrained_net(build, params.begun)
    recording.record(
        models.load(snakemake.input.weights, params.net, classes),
        batches,
        params.layers,
        output.store,
        beside=beside,
        places=params.places,
        image_index=index,
        device=device,
        seed=params.seed,
        **options,
    )


if __name__ == "__main__":
    run(main, snakemake)
