# Record the activations of all layers of a net on the validation images in one pass, and reduce
# them to statistics within each net and correlations between the nets of each pair.


rule record:
    input:
        **IMAGES,
        weights=rules.train.output.weights,
    output:
        store=(
            directory(ACTIVATIONS)
            if RUN.activations.keep
            else temp(directory(ACTIVATIONS))
        ),
    log:
        f"{LOGS}/record/{{net}}.log",
    benchmark:
        f"{TIMES}/record/{{net}}.tsv"
    conda:
        "../../envs/nets.yaml"
    threads: 1 + RUN.training.workers
    resources:
        **resources_for("record"),
        gpu=GPU,
    params:
        layers=RUN.layers,
        data=RUN.data.model_dump(),
        model=RUN.model.model_dump(),
        activations=RUN.activations.model_dump(exclude={"store", "keep"}),
        seed=RUN.statistics.seed,
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
    benchmark:
        f"{TIMES}/statistics/{{net}}.tsv"
    conda:
        "../../envs/nets.yaml"
    threads: threads_for("statistics")
    resources:
        **resources_for("statistics"),
        # Not a param, since it does not affect the result.
        dask=RUN.dask.model_dump_json(),
        gpu=GPU if RUN.dask.here else 0,
    params:
        layers=RUN.layers,
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
    benchmark:
        f"{TIMES}/correlation/{{pair}}.tsv"
    conda:
        "../../envs/nets.yaml"
    threads: threads_for("correlation")
    resources:
        **resources_for("correlation"),
        dask=RUN.dask.model_dump_json(),
        gpu=GPU if RUN.dask.here else 0,
    params:
        layers=RUN.layers,
        blocks=RUN.statistics.blocks,
        device=RUN.device,
        origin=origin("statistics.seed", "statistics.blocks"),
        code=code("correlation.py"),
    message:
        "Correlations between {wildcards.pair}"
    script:
        "../scripts/correlation.py"
