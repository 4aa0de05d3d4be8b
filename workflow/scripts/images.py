from _job import run


def main(snakemake):
    import logging
    import sys

    import numpy as np

    from convergent.nets.datasets import list_arrays, list_folder
    from convergent.running.files import writing

    params = snakemake.params
    asked = {"labels": params.get("labels", True), "trains": params.get("trains", True)}
    if snakemake.output.get("pixels"):
        listing, pixels = list_arrays(params.name, params.root, **params.split, **asked)
        with writing(snakemake.output.pixels) as path:
            np.savez(path, pixels=pixels)
    else:
        # Files that are left out are listed on the terminal now, and again when the run ends.
        logging.getLogger("convergent.nets.datasets").addHandler(
            logging.StreamHandler(sys.__stderr__)
        )
        listing = list_folder(params.root, snakemake.threads, **asked)
        with writing(snakemake.output.left_out) as path:
            listing.attrs["left_out"].to_csv(path, index=False)
    with writing(snakemake.output.listing) as path:
        listing.to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
