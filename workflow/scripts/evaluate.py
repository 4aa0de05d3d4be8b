from _job import device_of, run


def main(snakemake):
    import pandas as pd
    import torch

    from convergent.nets import datasets, evaluation, models
    from convergent.running.files import writing

    params = snakemake.params
    torch.set_num_threads(snakemake.threads)
    files = {key: path for key, path in snakemake.input.items() if key != "weights"}
    images, _, classes = datasets.recorded(files, params.data)
    row = evaluation.evaluate_images(
        snakemake.wildcards.net,
        models.load(snakemake.input.weights, params.net, classes),
        images,
        params.data,
        params.classes,
        number=classes,
        untrained=params.untrained,
        batch_size=params.batch_size,
        workers=snakemake.threads - 1,
        device=device_of(snakemake),
    )
    with writing(snakemake.output.evaluation) as path:
        pd.DataFrame([row]).to_csv(path, index=False)


if __name__ == "__main__":
    run(main, snakemake)
