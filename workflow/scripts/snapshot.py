from _job import run


def main(snakemake):
    import shutil

    from convergent.nets.training import find_snapshot
    from convergent.running.files import writing

    kept = find_snapshot(snakemake.input.snapshots, snakemake.params.epoch)
    with writing(snakemake.output.weights) as path:
        shutil.copyfile(kept, path)


if __name__ == "__main__":
    run(main, snakemake)
