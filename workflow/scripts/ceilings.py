from _job import run


def main(snakemake):
    from convergent.inference.ceilings import ceiling_table
    from convergent.running.files import writing

    nets = snakemake.params.nets
    table = ceiling_table(dict(zip(nets, snakemake.input.activations, strict=True)))
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
