from _job import run


def main(snakemake):
    from pathlib import Path

    from convergent.figures.report import write_report

    params = snakemake.params
    entries = [
        {"file": file} | entry
        for file, entry in zip(snakemake.input.files, params.entries, strict=True)
    ]
    atlas = Path(snakemake.output.page).parent / "atlas/index.html"
    words = "The atlas, to explore every unit (beside this page in the folder of the run)"
    links = {words: "atlas/index.html"} if atlas.is_file() else {}
    write_report(snakemake.output.page, f"Convergent learning: {params.run}", entries, links)


if __name__ == "__main__":
    run(main, snakemake)
