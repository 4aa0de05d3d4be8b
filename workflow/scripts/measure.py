from _job import device_of, run


def main(snakemake):
    from convergent.measures.matrices import write_matrices
    from convergent.measures.registry import measure

    write_matrices(
        measure(snakemake.params.measure),
        snakemake.output.store,
        snakemake.params.layers,
        snakemake.input.a,
        snakemake.input.get("b"),
        snakemake.input.get("correlation"),
        threads=snakemake.threads,
        device=device_of(snakemake),
        other_views=snakemake.params.get("other_views", False),
    )


if __name__ == "__main__":
    run(main, snakemake)
