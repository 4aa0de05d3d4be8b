# Without activation stores: run all nets side by side and reduce their activations at once.


rule observe:
    input:
        **IMAGES,
        weights=expand(rules.train.output.weights, net=RUN.nets),
    output:
        statistics=directory(expand(STATISTICS, net=RUN.nets)),
        correlations=directory(expand(CORRELATION, pair=RUN.pairs)),
    log:
        f"{LOGS}/observe.log",
    benchmark:
        f"{TIMES}/observe.tsv"
    conda:
        "../../envs/nets.yaml"
    threads: lambda wildcards: max(estimates().threads("observe"), 1 + RUN.training.workers)
    resources:
        **resources_for("observe"),
        gpu=GPU,
    params:
        nets=list(RUN.nets),
        pairs=RUN.pairs,
        layers=RUN.layers,
        data=RUN.data.model_dump(),
        model=RUN.model.model_dump(),
        activations=RUN.activations.model_dump(exclude={"store", "keep"}),
        statistics=RUN.statistics.model_dump(),
        device=RUN.device,
        origin=origin("statistics"),
        code=code("observe.py"),
    message:
        "Observing {params.nets}: {params.layers}"
    script:
        "../scripts/observe.py"
