from _job import run


def main(snakemake):
    import pandas as pd
    import torch

    from convergent import activations, datasets, models
    from convergent.training import choose_device

    params, recording = snakemake.params, snakemake.params.recording
    torch.set_num_threads(snakemake.threads)
    device = choose_device(params.device)
    source = snakemake.input.get("pixels") or params.data["root"]
    listing = pd.read_csv(snakemake.input.listing, dtype={"class": str, "path": str})
    images, index = datasets.load_recorded(
        listing, source, params.data, number=recording["images"], seed=params.seed
    )
    classes = listing["label"].nunique()
    net = models.load(snakemake.input.weights, params.model, params.data, classes)
    activations.record(
        net,
        images.batches(
            recording["batch_size"],
            params.data["mean"],
            params.data["std"],
            workers=snakemake.threads - 1,
            device=device,
        ),
        params.layers,
        snakemake.output.store,
        image_index=index,
        dtype=recording["dtype"],
        device=device,
    )


if __name__ == "__main__":
    run(main, snakemake)
