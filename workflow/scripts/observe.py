from _job import device_of, run


def main(snakemake):
    from functools import partial
    from pathlib import Path

    import torch

    from convergent.activations import from_nets
    from convergent.nets import datasets, models, training

    params, outputs = snakemake.params, snakemake.output
    torch.set_num_threads(snakemake.threads)
    device = device_of(snakemake)
    options, names = dict(params.activations), list(params.nets)
    untrained = {Path(path).parent.name: path for path in outputs.get("untrained", ())}
    # All nets together process as many images at a time as one net does in recording.
    batch_size = max(1, options.pop("batch_size") // (len(names) + len(untrained)))
    batches, index, classes = datasets.batches_of_nets(
        dict(snakemake.input.items()),
        params.data,
        batch_size,
        number=options.pop("images"),
        seed=params.statistics["seed"],
        workers=snakemake.threads - 1,
        device=device,
    )
    nets = {
        name: models.load(weights, params.nets[name], classes)
        for name, weights in zip(names, snakemake.input.weights, strict=True)
    }
    correlations = {
        tuple(pair.split("-")): path
        for pair, path in zip(params.pairs, outputs.correlations, strict=True)
    }
    before = {}
    for name, path in untrained.items():
        build = partial(models.build, **models.options(params.nets[name], classes))
        before[name] = (training.untrained_net(build, params.seeds[name]), path)
    from_nets.observe(
        nets,
        batches,
        params.layers,
        dict(zip(names, outputs.statistics, strict=True)),
        correlations,
        untrained=before,
        controls={
            tuple(Path(path).parent.name.split("-")): path for path in outputs.get("controls", ())
        },
        places=params.places,
        other_views=params.other_views,
        image_index=index,
        device=device,
        threads=snakemake.threads,
        **options,
        **params.statistics,
    )


if __name__ == "__main__":
    run(main, snakemake)
