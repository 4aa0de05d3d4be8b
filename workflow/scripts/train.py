from _job import device_of, run


def main(snakemake):
    import os
    import shutil
    from functools import partial
    from pathlib import Path

    import pandas as pd
    import torch

    from convergent.nets import datasets, finished, models, recipe, training
    from convergent.running.files import writing

    params = snakemake.params
    torch.set_num_threads(snakemake.threads)
    device = device_of(snakemake)
    source = snakemake.input.get("pixels") or params.data["root"]
    listing = pd.read_csv(snakemake.input.listing, dtype={"class": str, "path": str})
    train, validation = datasets.load(listing, source, params.data)
    options = models.options(params.net, classes=listing["label"].nunique())
    key = recipe.checkpoint_key(
        listing,
        seed=params.seed,
        data=params.data,
        model=params.net["model"],
        training=params.training,
        device=device,
        threads=snakemake.threads,
        code=params.net.get("code"),
    )
    steps = dict(params.training)
    # Snapshots lie beside the checkpoint, because Snakemake removes the outputs of a killed job.
    kept = {
        epoch: Path(params.checkpoints, key, recipe.snapshot_file(epoch))
        for epoch in steps.pop("snapshots", [])
        if epoch <= steps["epochs"]
    }

    finished.take_finished(params.checkpoints, key, steps["epochs"])

    def keep(epoch, weights):
        with writing(kept[epoch]) as path:
            torch.save(weights, path)

    weights, history = training.train(
        partial(models.build, **options),
        train,
        validation,
        seed=params.seed,
        mean=params.data["mean"],
        std=params.data["std"],
        device=device,
        workers=snakemake.threads - 1,
        checkpoint=f"{params.checkpoints}/{key}.pt",
        name=snakemake.wildcards.net,
        snapshots=[epoch for epoch, path in kept.items() if not path.exists()],
        keep=keep,
        **steps,
    )
    if snakemake.output.get("snapshots"):
        with writing(snakemake.output.snapshots) as folder:
            folder.mkdir()
            for path in kept.values():
                try:
                    os.link(path, folder / path.name)
                except OSError:  # a file system without links
                    shutil.copyfile(path, folder / path.name)
    with writing(snakemake.output.weights) as path, open(path, "wb") as file:
        torch.save(weights, file)
    with writing(snakemake.output.history) as path:
        pd.DataFrame(history).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
