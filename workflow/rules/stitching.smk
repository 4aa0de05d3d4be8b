# Let each net of a pair go on from the layers of the other, through maps of their units.
STITCH = f"{RESULTS}/pairs/{{pair}}/stitch.csv"


rule stitch_layers:
    input:
        **IMAGES,
        weights_a=of_pair(WEIGHTS, 0),
        weights_b=of_pair(WEIGHTS, 1),
        a=of_pair(STATISTICS, 0),
        b=of_pair(STATISTICS, 1),
        correlation=CORRELATION,
        activations_a=where_stored(ACTIVATIONS, 0),
        activations_b=where_stored(ACTIVATIONS, 1),
        untrained_a=where_controlled(UNTRAINED, 0),
        untrained_b=where_controlled(UNTRAINED, 1),
        controls=where_controlled(CONTROLS),
    output:
        table=STITCH,
    log:
        f"{LOGS}/stitch_layers/{{pair}}.log",
    conda:
        "../../envs/nets.yaml"
    threads: lambda wildcards: max(estimates().threads("fit_maps"), 1 + RUN.training.workers)
    resources:
        **resources_for("stitch"),
        gpu=GPU,
    params:
        nets=lambda wildcards: list(forms_of_pair(wildcards).values()),
        layers=layers_of,
        decays=RUN.mapping.decays,
        blocks=RUN.statistics.blocks,
        images=RUN.activations.images,
        batch_size=RUN.activations.batch_size,
        seed=RUN.statistics.seed,
        # Of the order of images in the control.
        draws=RUN.nulls.seed,
        device=RUN.device,
        code=code("stitch.py", modules=MEASURE_MODULES),
    message:
        "Stitching {wildcards.pair}"
    script:
        "../scripts/stitch.py"
