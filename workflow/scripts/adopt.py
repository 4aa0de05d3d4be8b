from _job import run


def main(snakemake):
    import pandas as pd
    import torch

    from convergent.nets import models, weights
    from convergent.running.files import writing

    params = snakemake.params
    torch.set_num_threads(snakemake.threads)
    classes = pd.read_csv(snakemake.input.listing, usecols=["label"])["label"].nunique()
    net = models.build(**models.options(params.net, classes))
    state = weights.adopt(net, snakemake.input.file, params.state, params.prefix)
    with writing(snakemake.output.weights) as path, open(path, "wb") as file:
        torch.save(state, file)


if __name__ == "__main__":
    run(main, snakemake)
