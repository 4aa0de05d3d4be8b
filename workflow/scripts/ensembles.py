from _job import device_of, run


def main(snakemake):
    import torch

    from convergent.activations.blocks import Cut
    from convergent.consequences.ensembles import alike, answers, ensembles
    from convergent.nets import datasets, models
    from convergent.running.files import writing

    files, params, device = snakemake.input, snakemake.params, device_of(snakemake)
    torch.set_num_threads(snakemake.threads)
    scores = {}
    for (name, net), weights in zip(params.nets.items(), files.weights, strict=True):
        images, _, classes = datasets.recorded(
            dict(files.items()), net["data"], number=params.images, seed=params.seed
        )
        scores[name] = answers(
            models.load(weights, net["net"], classes),
            datasets.views(images, params.batch_size, net["data"], snakemake.threads - 1, device),
            net["classes"],
            classes,
            device,
        )
    similarity = {
        tuple(nets): alike(store, layers)
        for (nets, layers), store in zip(params.pairs, files.correlations, strict=True)
    }
    table = ensembles(
        scores,
        images.labels,
        similarity,
        params.layers,
        half=Cut.of(len(images), params.blocks).half,
        **params.ensembles,
    )
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
