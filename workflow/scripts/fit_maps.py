from _job import compile_once, run


def main(snakemake):
    import numpy as np

    from convergent.alignment.lasso import lasso_path
    from convergent.alignment.sparse_maps import write_mapping

    compile_once("lasso", lambda: lasso_path(np.eye(2), np.eye(2), [0.5]))
    inputs, params = snakemake.input, snakemake.params
    write_mapping(
        snakemake.output.store,
        params.layers,
        params.decays,
        inputs.a,
        inputs.b,
        inputs.correlation,
        threads=snakemake.threads,
    )


if __name__ == "__main__":
    run(main, snakemake)
