from _job import run


def main(snakemake):
    from convergent.devices import choose_device
    from convergent.statistics import write_mutual_information

    write_mutual_information(
        snakemake.output.store,
        snakemake.params.layers,
        *snakemake.input,
        threads=snakemake.threads,
        device=choose_device(snakemake.params.device),
    )


if __name__ == "__main__":
    run(main, snakemake)
