from _job import run


def main(snakemake):
    from pkgutil import resolve_name

    from convergent.running.files import writing

    params = dict(snakemake.params)
    make, draw = params.pop("make"), params.pop("draw", None)
    del params["code"]
    table = resolve_name(make)(**snakemake.input, **params)
    with writing(snakemake.output.table) as path:
        table.to_csv(path, index=False)
    if draw:
        from convergent.figures.style import save

        save(resolve_name(draw)(table), *snakemake.output.pictures)


if __name__ == "__main__":
    run(main, snakemake)
