from _job import run


def main(snakemake):
    import json
    from pathlib import Path

    import pandas as pd

    from convergent.inference.verification import small_form
    from convergent.running.files import writing
    from convergent.running.release import pack

    params, output = snakemake.params, snakemake.output
    about = pack(params.folder, output.archive, params.configuration, params.leave_out)
    with writing(output.manifest) as path:
        path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    with writing(output.tables) as folder:
        folder.mkdir()
        for file in sorted(Path(params.folder, "tables").glob("*.csv")):
            if file.stem != "verify":
                small_form(pd.read_csv(file)).to_csv(folder / file.name, index=False)
    print(f"{output.archive}: {about['megabytes']} MB, {about['files']} files")


if __name__ == "__main__":
    run(main, snakemake)
