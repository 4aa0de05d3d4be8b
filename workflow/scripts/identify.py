from _job import run


def main(snakemake):
    from convergent.inference.identification import identification_table
    from convergent.running.files import writing

    params = snakemake.params
    table = identification_table(snakemake.input.table, params.sides, params.nets)
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
