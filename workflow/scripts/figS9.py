from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.clusters import similarity_curves
    from convergent.figures.style import save

    similarity = pd.read_csv(snakemake.input.similarity)
    save(similarity_curves(similarity, snakemake.params.layers), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
