# What an alignment is good for (section 6 of the paper): nets between two nets, and of two nets.
MERGE = f"{RESULTS}/pairs/{{pair}}/merge.csv"
NETS_OF_PAIR = dict(
    **IMAGES,
    weights_a=of_pair(WEIGHTS, 0),
    weights_b=of_pair(WEIGHTS, 1),
    correlation=CORRELATION,
    statistics_a=of_pair(STATISTICS, 0),
    statistics_b=of_pair(STATISTICS, 1),
)
MERGING = dict(
    names=nets_of_pair,
    nets=lambda wildcards: [FORMS[net] for net in nets_of_pair(wildcards)],
    data=seen_of_pair,
    places=lambda wildcards: [NODES[net].places for net in nets_of_pair(wildcards)],
    classes=lambda wildcards: [
        NODES[net].own.classes for net in nets_of_pair(wildcards)
    ],
    points=RUN.merging.points,
    # Also the images of a batch: as many are run at once to repair units.
    images=RUN.merging.images,
    recorded=RUN.activations.images,
    seed=RUN.statistics.seed,
    device=RUN.device,
)


rule merge_nets:
    input:
        **NETS_OF_PAIR,
    output:
        table=MERGE,
        barrier=f"{RESULTS}/pairs/{{pair}}/merge_barrier.csv",
        collapse=f"{RESULTS}/pairs/{{pair}}/collapse.csv",
    log:
        f"{LOGS}/merge_nets/{{pair}}.log",
    conda:
        "../../envs/nets.yaml"
    threads: 1 + RUN.training.workers
    resources:
        **resources_for("merge_nets"),
        gpu=GPU,
    params:
        **MERGING,
        code=code("merge.py"),
    message:
        "Nets between the nets of {wildcards.pair}"
    script:
        "../scripts/merge.py"


rule zip_nets:
    input:
        **NETS_OF_PAIR,
    output:
        table=f"{RESULTS}/pairs/{{pair}}/zip.csv",
    log:
        f"{LOGS}/zip_nets/{{pair}}.log",
    conda:
        "../../envs/nets.yaml"
    threads: 1 + RUN.training.workers
    resources:
        **resources_for("zip_nets"),
        gpu=GPU,
    params:
        **MERGING,
        code=code("zip.py"),
    message:
        "One net of the nets of {wildcards.pair}"
    script:
        "../scripts/zip.py"
