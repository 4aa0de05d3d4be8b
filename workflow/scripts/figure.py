from _job import run


def main(snakemake):
    from pkgutil import resolve_name

    from convergent.figures.style import save

    params = dict(snakemake.params)
    draw = resolve_name(params.pop("draw"))
    del params["code"]
    save(draw(**snakemake.input, **params), *snakemake.output)


if __name__ == "__main__":
    run(main, snakemake)
