from _job import device_of, run


def main(snakemake):
    from pathlib import Path

    import torch

    from convergent.activations import recording
    from convergent.nets import datasets, models

    params = snakemake.params
    torch.set_num_threads(snakemake.threads)
    device = device_of(snakemake)
    options = dict(params.activations)
    batches, index, classes = datasets.recorded_batches(
        dict(snakemake.input.items()),
        params.data,
        Path(snakemake.output.store),
        options.pop("batch_size"),
        number=options.pop("images"),
        seed=params.seed,
        workers=snakemake.threads - 1,
        device=device,
    )
    recording.record(
        models.load(snakemake.input.weights, params.model, params.data, classes),
        batches,
        params.layers,
        snakemake.output.store,
        image_index=index,
        device=device,
        seed=params.seed,
        **options,
    )


if __name__ == "__main__":
    run(main, snakemake)
