from _job import run


def main(snakemake):
    from functools import partial

    import pandas as pd
    import torch

    from convergent.nets import models, training
    from convergent.running.files import writing

    params = snakemake.params
    labels = pd.read_csv(snakemake.input.listing, usecols=["label"])["label"]
    options = models.options(params.net, classes=labels.nunique())
    weights = training.untrained(partial(models.build, **options), params.seed)
    with writing(snakemake.output.weights) as path, open(path, "wb") as file:
        torch.save(weights, file)


if __name__ == "__main__":
    run(main, snakemake)
