from _job import device_of, run


def main(snakemake):
    import pandas as pd
    import torch

    from convergent.nets import datasets, models, recipe, training
    from convergent.running.stores import writing

    params = snakemake.params
    torch.set_num_threads(snakemake.threads)
    device = device_of(snakemake)
    source = snakemake.input.get("pixels") or params.data["root"]
    listing = pd.read_csv(snakemake.input.listing, dtype={"class": str, "path": str})
    train, validation = datasets.load(listing, source, params.data)
    options = models.options(params.model, params.data, classes=listing["label"].nunique())
    key = recipe.checkpoint_key(
        listing,
        seed=params.seed,
        data=params.data,
        model=params.model,
        training=params.training,
        device=device,
        threads=snakemake.threads,
    )
    weights, history = training.train(
        lambda: models.build(**options),
        train,
        validation,
        seed=params.seed,
        mean=params.data["mean"],
        std=params.data["std"],
        device=device,
        workers=snakemake.threads - 1,
        checkpoint=f"{params.checkpoints}/{key}.pt",
        name=snakemake.wildcards.net,
        **params.training,
    )
    with writing(snakemake.output.weights) as path, open(path, "wb") as file:
        torch.save(weights, file)
    with writing(snakemake.output.history) as path:
        pd.DataFrame(history).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
