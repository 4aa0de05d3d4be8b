from _job import run


def main(snakemake):
    from pathlib import Path

    from convergent.inference.verification import (
        VerificationError,
        describe,
        passes,
        read_tables,
        verify,
    )
    from convergent.running.files import writing

    params = snakemake.params
    found, published = read_tables(params.tables), read_tables(params.against)
    table = verify(found, published)
    # No output of the rule, since Snakemake removes those of a job that fails.
    with writing(Path(params.tables, "verify.csv")) as path:
        table.to_csv(path, index=False)
    told = describe(table)
    if not passes(table):
        raise VerificationError(
            f"{params.tables} says something else than {params.against}. {told}"
        )
    print(told)


if __name__ == "__main__":
    run(main, snakemake)
