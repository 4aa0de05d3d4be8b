from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.clusters import permuted_matrices
    from convergent.figures.style import save
    from convergent.running.stores import open_store

    layers, nets = snakemake.params.layers, snakemake.params.pair.split("-")
    stores = [open_store(snakemake.input[name]) for name in ("a", "correlation", "b")]
    clusters = pd.read_csv(snakemake.input.clusters)
    panels = (
        (
            layer,
            [store[f"{layer}/correlation"][...] for store in stores],
            clusters.query("layer == @layer"),
        )
        for layer in layers
    )
    save(permuted_matrices(panels, nets), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
