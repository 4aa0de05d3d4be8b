from _job import device_of, run


def main(snakemake):
    import torch

    from convergent.consequences.curves import barriers
    from convergent.consequences.merged_pairs import load_pair, merge_pair
    from convergent.running.files import writing

    torch.set_num_threads(snakemake.threads)
    params = snakemake.params
    found = merge_pair(
        **load_pair(dict(snakemake.input.items()), params),
        points=params.points,
        seed=params.seed,
        device=device_of(snakemake),
        threads=snakemake.threads,
    )
    tables = {"table": found.table, "barrier": barriers(found.table), "collapse": found.collapse}
    for name, table in tables.items():
        with writing(snakemake.output[name]) as path:
            table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
