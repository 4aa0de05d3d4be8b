from _job import device_of, run


def main(snakemake):
    from functools import partial

    import pandas as pd
    import torch

    from convergent.activations.blocks import Cut
    from convergent.consequences.stitching import seams, stitch
    from convergent.inference.similarity import Stores
    from convergent.nets import datasets, models, training
    from convergent.running.files import writing

    files, params, device = snakemake.input, snakemake.params, device_of(snakemake)
    torch.set_num_threads(snakemake.threads)
    names = snakemake.wildcards.pair.split("-")
    files_of = {"statistics_a": "a", "statistics_b": "b"}
    # Optional inputs are empty where there are none.
    stores = Stores(**{of: files.get(files_of.get(of, of)) or None for of in Stores._fields})
    nets, untrained, views = [], [], []
    for side, net in zip("ab", params.nets, strict=True):
        images, _, classes = datasets.recorded(
            dict(files.items()), net["data"], number=params.images, seed=params.seed
        )
        build = partial(models.build, **models.options(net["net"], classes))
        nets.append(models.load(files[f"weights_{side}"], net["net"], classes))
        untrained.append(None)
        if stores.controls:
            untrained[-1] = training.untrained_net(build, net["seed"])
        views.append(
            partial(
                datasets.views,
                images,
                params.batch_size,
                net["data"],
                snakemake.threads - 1,
                device,
            )
        )
    tables = []
    for direction, (a, b) in (("ab", (0, 1)), ("ba", (1, 0))):
        made = partial(
            seams, stores=stores, direction=direction, decays=params.decays,
            seed=params.draws, threads=snakemake.threads,
        )  # fmt: skip
        table = stitch(
            (nets[a], nets[b]),
            lambda a=a, b=b: zip(views[a](), views[b](), strict=True),
            images.labels,
            (params.nets[a]["places"], params.nets[b]["places"]),
            params.layers,
            made,
            half=Cut.of(len(images), params.blocks).half,
            untrained=untrained[a],
            classes=params.nets[b]["classes"],
            number=classes,
            device=device,
            name=f"{names[b]} after {names[a]}",
        )
        table.insert(1, "direction", direction)
        tables.append(table)
    with writing(snakemake.output.table) as path:
        pd.concat(tables).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
