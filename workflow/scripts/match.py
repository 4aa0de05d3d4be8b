from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.matching import match_table
    from convergent.progress import progress
    from convergent.stores import open_store, writing

    tables = []
    for measure in ("correlation", "mutual_information"):
        store = open_store(snakemake.input[measure])
        similarities = [store[f"{layer}/{measure}"] for layer in snakemake.params.layers]
        name = f"{snakemake.wildcards.pair} by {measure}"
        tables += [
            match_table(similarity[...], layer, measure)
            for layer, similarity in zip(
                snakemake.params.layers,
                progress(similarities, name, "pair", lambda similarity: similarity.size),
                strict=True,
            )
        ]
    with writing(snakemake.output.matching) as path:
        pd.concat(tables).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
