from _job import device_of, run


def main(snakemake):
    from pathlib import Path

    import pandas as pd
    import torch

    from convergent.activations.side_by_side import observe_side_by_side
    from convergent.nets import datasets, evaluation, models, training
    from convergent.running.files import writing

    files, params, device = dict(snakemake.input.items()), snakemake.params, device_of(snakemake)
    torch.set_num_threads(snakemake.threads)
    weights, snapshots = files.pop("weights"), files.pop("snapshots", [])
    options, nets = dict(params.activations), params.nets
    number, workers = options.pop("images"), snakemake.threads - 1
    # Nets and their final states together process as many images at a time as one net does.
    batch_size = max(1, options.pop("batch_size") // (2 * len(nets)))
    batches, index, classes = datasets.batches_of_nets(
        files,
        {name: net["data"] for name, net in nets.items()},
        batch_size,
        number=number,
        seed=params.seed,
        workers=workers,
        device=device,
    )

    def loaded(paths):
        return {
            name: models.load(path, net["net"], classes)
            for (name, net), path in zip(nets.items(), paths, strict=True)
        }

    # Without snapshots, nets run in their final states only.
    final = loaded(weights) if snapshots else {}
    kept = [training.find_snapshot(folder, params.snapshot) for folder in snapshots]
    now = loaded(kept or weights)
    with writing(snakemake.output.folder) as folder:
        observe_side_by_side(
            now,
            final,
            batches,
            params.layers,
            folder,
            image_index=index,
            places={name: net["places"] for name, net in nets.items()},
            blocks=params.blocks,
            seed=params.seed,
            device=device,
            threads=snakemake.threads,
            **options,
        )
        rows = {}
        for name, net in now.items():
            images, _, _ = datasets.recorded(files, nets[name]["data"])
            rows[name] = evaluation.evaluate_images(
                name,
                net,
                images,
                nets[name]["data"],
                nets[name]["classes"],
                number=classes,
                untrained=True,
                batch_size=batch_size,
                workers=workers,
                device=device,
            )._asdict()
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("net")
        table.to_csv(Path(folder, "accuracy.csv"))


if __name__ == "__main__":
    run(main, snakemake)
