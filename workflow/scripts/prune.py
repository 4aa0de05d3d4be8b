from _job import device_of, run


def main(snakemake):
    from functools import partial

    import pandas as pd
    import torch

    from convergent.consequences.pruning import orders_of_pair, prune
    from convergent.nets import datasets, models
    from convergent.running.files import writing

    files, params, device = snakemake.input, snakemake.params, device_of(snakemake)
    torch.set_num_threads(snakemake.threads)
    options = dict(params.pruning)
    steps = options.pop("steps")
    shares = [step / steps for step in range(steps + 1)]
    layers = params.layers
    chosen, half = orders_of_pair((files.a, files.b), files.correlation, layers, **options)
    tables = []
    for side, (name, net) in enumerate(params.nets.items()):
        images, _, classes = datasets.recorded(
            dict(files.items()), net["data"], number=params.images, seed=params.seed
        )
        table = prune(
            models.load(files[f"weights_{'ab'[side]}"], net["net"], classes),
            partial(
                datasets.views,
                images,
                params.batch_size,
                net["data"],
                snakemake.threads - 1,
                device,
            ),
            images.labels,
            {layer: net["places"][layer] for layer in layers},
            chosen[side],
            shares,
            half=half,
            classes=net["classes"],
            number=classes,
            device=device,
            seed=options["seed"],
            name=name,
        )
        table.insert(1, "net", name)
        tables.append(table)
    with writing(snakemake.output.table) as path:
        pd.concat(tables).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
