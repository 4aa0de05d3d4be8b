from _job import run, scheduler_of


def main(snakemake):
    from convergent.inference.similarity import layer_table
    from convergent.measures.registry import measure
    from convergent.running.files import writing

    stores, params = snakemake.input, snakemake.params
    with scheduler_of(snakemake) as scheduler:
        table = layer_table(
            [measure(name) for name in params.measures],
            stores.activations_a,
            stores.activations_b,
            *params.layers,
            params.pairs,
            statistics=(stores.statistics_a, stores.statistics_b),
            nulls=params.nulls,
            name=f"layers of {snakemake.wildcards.pair}",
            unequal=params.unequal,
            blocks=params.blocks,
            scheduler=scheduler,
            workers=snakemake.threads,
        )
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
