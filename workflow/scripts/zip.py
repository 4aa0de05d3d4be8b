from _job import device_of, run


def main(snakemake):
    import torch

    from convergent.consequences.curves import points_between
    from convergent.consequences.merged_pairs import load_pair
    from convergent.consequences.zipped_pairs import zip_pair
    from convergent.running.files import writing

    torch.set_num_threads(snakemake.threads)
    params = snakemake.params
    table = zip_pair(
        **load_pair(dict(snakemake.input.items()), params),
        shares=points_between(params.points),
        seed=params.seed,
        device=device_of(snakemake),
        threads=snakemake.threads,
    )
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
