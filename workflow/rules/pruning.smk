# Remove units of the nets of a pair in the order of their matches (section 6 of the paper).
PRUNE = f"{RESULTS}/pairs/{{pair}}/prune.csv"


rule prune_units:
    input:
        **IMAGES,
        weights_a=of_pair(WEIGHTS, 0),
        weights_b=of_pair(WEIGHTS, 1),
        a=of_pair(STATISTICS, 0),
        b=of_pair(STATISTICS, 1),
        correlation=CORRELATION,
    output:
        table=PRUNE,
    log:
        f"{LOGS}/prune_units/{{pair}}.log",
    conda:
        "../../envs/nets.yaml"
    threads: 1 + RUN.training.workers
    resources:
        **resources_for("prune"),
        gpu=GPU,
    params:
        nets=forms_of_pair,
        layers=layers_of,
        pruning=RUN.pruning.model_dump(),
        images=RUN.activations.images,
        batch_size=RUN.activations.batch_size,
        seed=RUN.statistics.seed,
        device=RUN.device,
        code=code("prune.py"),
    message:
        "Removing units of {wildcards.pair}"
    script:
        "../scripts/prune.py"
