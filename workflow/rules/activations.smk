# Record the activations of all layers of a net on the validation images in one pass, and reduce
# them to statistics within each net and correlations between the nets of each pair. Jobs of nets
# that are compared with their untrained selves do the same to these, without starting anew.


rule record:
    input:
        **IMAGES,
        weights=WEIGHTS,
    output:
        store=kept_if_asked(ACTIVATIONS),
    log:
        f"{LOGS}/record/{{net}}.log",
    wildcard_constraints:
        net=NETS_ALONE,
    conda:
        "../../envs/nets.yaml"
    threads: 1 + RUN.training.workers
    resources:
        **resources_for("record"),
        gpu=GPU,
    params:
        layers=layers_of,
        places=places_of,
        data=data_of,
        net=net_of,
        activations=RUN.activations.model_dump(exclude={"store", "keep"}),
        seed=RUN.statistics.seed,
        # What the net's training here began from.
        begun=lambda wildcards: NODES[wildcards.net].seed,
        device=RUN.device,
        origin=origin("statistics.seed"),
        code=code("record.py"),
    message:
        "Recording {wildcards.net}: {params.layers}"
    script:
        "../scripts/record.py"


rule statistics:
    input:
        activations=ACTIVATIONS,
    output:
        store=directory(STATISTICS),
    log:
        f"{LOGS}/statistics/{{net}}.log",
    wildcard_constraints:
        net=NETS_ALONE,
    conda:
        "../../envs/nets.yaml"
    threads: threads_for("statistics")
    resources:
        **resources_for("statistics"),
        # Not a param, since it does not affect the result.
        dask=RUN.dask.model_dump_json(),
        gpu=GPU if RUN.dask.here else 0,
    params:
        layers=layers_of,
        options=RUN.statistics.model_dump(),
        device=RUN.device,
        origin=origin("statistics"),
        code=code("statistics.py"),
    message:
        "Statistics within {wildcards.net}"
    script:
        "../scripts/statistics.py"


rule correlation:
    input:
        a=of_pair(ACTIVATIONS, 0),
        b=of_pair(ACTIVATIONS, 1),
    output:
        store=directory(CORRELATION),
    log:
        f"{LOGS}/correlation/{{pair}}.log",
    wildcard_constraints:
        pair=PAIRS_ALONE,
    conda:
        "../../envs/nets.yaml"
    threads: threads_for("correlation")
    resources:
        **resources_for("correlation"),
        dask=RUN.dask.model_dump_json(),
        gpu=GPU if RUN.dask.here else 0,
    params:
        layers=layers_of,
        blocks=RUN.statistics.blocks,
        other_views=other_views,
        device=RUN.device,
        origin=origin("statistics.seed", "statistics.blocks"),
        code=code("correlation.py"),
    message:
        "Correlations between {wildcards.pair}"
    script:
        "../scripts/correlation.py"


if RECORDED_TWICE:

    use rule record as record_with_untrained with:
        output:
            store=kept_if_asked(ACTIVATIONS),
            untrained=kept_if_asked(UNTRAINED_ACTIVATIONS),
        wildcard_constraints:
            net="|".join(RECORDED_TWICE),
        resources:
            **resources_for("record", untrained=True),
            gpu=GPU,

    use rule statistics as statistics_with_untrained with:
        input:
            activations=ACTIVATIONS,
            untrained=UNTRAINED_ACTIVATIONS,
        output:
            store=directory(STATISTICS),
            untrained=directory(UNTRAINED),
        wildcard_constraints:
            net="|".join(RECORDED_TWICE),
        resources:
            **resources_for("statistics", untrained=True),
            dask=RUN.dask.model_dump_json(),
            gpu=GPU if RUN.dask.here else 0,

    use rule correlation as correlation_with_untrained with:
        input:
            a=of_pair(ACTIVATIONS, 0),
            b=of_pair(ACTIVATIONS, 1),
            untrained_a=of_pair(UNTRAINED_ACTIVATIONS, 0),
            untrained_b=of_pair(UNTRAINED_ACTIVATIONS, 1),
        output:
            store=directory(CORRELATION),
            controls=directory(CONTROLS),
        wildcard_constraints:
            pair="|".join(CONTROLLED) or "(?!)",
        resources:
            **resources_for("correlation", untrained=True),
            dask=RUN.dask.model_dump_json(),
            gpu=GPU if RUN.dask.here else 0,
