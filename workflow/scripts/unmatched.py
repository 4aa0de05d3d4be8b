from _job import run


def main(snakemake):
    import pandas as pd

    from convergent.figures.tables import unmatched
    from convergent.running.stores import open_store, writing

    params = snakemake.params
    matches = dict(zip(params.pairs, map(pd.read_csv, snakemake.input.matches), strict=True))
    dead = {
        net: {layer: group["dead"][...] for layer, group in store.groups()}
        for net, store in zip(params.nets, map(open_store, snakemake.input.statistics), strict=True)
    }
    with writing(snakemake.output.table) as path:
        unmatched(matches, dead).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
