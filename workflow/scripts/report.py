from _job import run


def main(snakemake):
    from convergent.report import write_report

    params = snakemake.params
    entries = [
        {"file": file} | entry
        for file, entry in zip(snakemake.input.files, params.entries, strict=True)
    ]
    atlas = "The atlas, to explore every unit (beside this page in the folder of the run)"
    title = f"Convergent learning: {params.run}"
    write_report(snakemake.output.page, title, entries, {atlas: "atlas/index.html"})


if __name__ == "__main__":
    run(main, snakemake)
