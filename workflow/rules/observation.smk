# Without activation stores: run all nets side by side and reduce their activations at once.


rule observe:
    input:
        **IMAGES,
        weights=expand(WEIGHTS, net=COMPARED),
    output:
        statistics=directory(expand(STATISTICS, net=COMPARED)),
        correlations=directory(expand(CORRELATION, pair=PAIRS)),
        untrained=directory(expand(UNTRAINED, net=NETS_CONTROLLED)),
        controls=directory(expand(CONTROLS, pair=CONTROLLED)),
    log:
        f"{LOGS}/observe.log",
    conda:
        "../../envs/nets.yaml"
    threads: lambda wildcards: max(estimates().threads("observe"), 1 + RUN.training.workers)
    resources:
        **resources_for("observe"),
        gpu=GPU,
    params:
        nets={name: FORMS[name] for name in COMPARED},
        seeds={name: NODES[name].seed for name in COMPARED},
        places={name: NODES[name].places for name in COMPARED},
        data={name: NODES[name].data.model_dump() for name in COMPARED},
        layers=RUN.layer_names,
        pairs=list(PAIRS),
        other_views=any(
            NODES[name].data.views != NODES[COMPARED[0]].data.views
            for name in COMPARED
        ),
        activations=RUN.activations.model_dump(exclude={"store", "keep"}),
        statistics=RUN.statistics.model_dump(),
        device=RUN.device,
        origin=origin("statistics"),
        code=code("observe.py"),
    message:
        "Observing all nets side by side"
    script:
        "../scripts/observe.py"
