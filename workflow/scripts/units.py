from _job import run


def main(snakemake):
    import pandas as pd
    import torch

    from convergent import datasets, models, units
    from convergent.training import choose_device

    params = snakemake.params
    torch.set_num_threads(snakemake.threads)
    source = snakemake.input.get("pixels") or params.data["root"]
    listing = pd.read_csv(snakemake.input.listing, dtype={"class": str, "path": str})
    images, index = datasets.load_recorded(
        listing, source, params.data, number=params.recording["images"], seed=params.seed
    )
    classes = listing["label"].nunique()
    net = models.load(snakemake.input.weights, params.model, params.data, classes)
    units.write_units(
        snakemake.output.store,
        params.layers,
        snakemake.input.activations,
        net,
        images,
        index,
        params.data,
        pictures=params.pictures,
        threads=snakemake.threads,
        device=choose_device(params.device),
    )


if __name__ == "__main__":
    run(main, snakemake)
