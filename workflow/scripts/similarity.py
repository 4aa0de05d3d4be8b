from _job import compile_once, run


def main(snakemake):
    import numpy as np

    from convergent.inference.significance import NullMatches, significance_tables, statistics
    from convergent.inference.similarity import Stores, similarity_table
    from convergent.measures.registry import measure
    from convergent.measures.transport import transports
    from convergent.running.files import writing

    params, output = snakemake.params, dict(snakemake.output.items())
    nulls, matches = params.nulls, NullMatches()
    if any("soft_matching" in name for name in params.measures):
        compile_once("transport", lambda: transports(np.eye(3)[:, :2], [0.5]))
    tables = similarity_table(
        [measure(name) for name in params.measures] if "table" in output else [],
        params.layers,
        Stores.of_job(snakemake.input),
        statistics=statistics(),
        nulls=nulls,
        watch=matches.watch,
        threads=snakemake.threads,
    )
    significance, draws = significance_tables(tables.statistics, tables.draws, nulls["level"])
    made = {
        "table": tables.similarity,
        "significance": significance,
        "draws": draws,
        "matches": matches.table(nulls["level"]),
    }
    for name in output:
        with writing(output[name]) as path:
            made[name].to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
