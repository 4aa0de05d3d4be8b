from _job import device_of, run


def main(snakemake):
    from convergent.measures.mutual_information import write_mutual_information

    write_mutual_information(
        snakemake.output.store,
        snakemake.params.layers,
        *snakemake.input,
        threads=snakemake.threads,
        device=device_of(snakemake),
    )


if __name__ == "__main__":
    run(main, snakemake)
