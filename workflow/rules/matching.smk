# Align the units of a pair one to one, and sum up over pairs.


rule match:
    input:
        correlation=CORRELATION,
        mutual_information=rules.mutual_information.output.store,
    output:
        matching=f"{RESULTS}/pairs/{{pair}}/matching.csv",
    log:
        f"{LOGS}/match/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **asks("match"),
    params:
        layers=RUN.layers,
        code=code("match.py"),
    message:
        "Matching the units of {wildcards.pair}"
    script:
        "../scripts/match.py"


# What tells the activations of both nets: their stores, or the nets.
VALUES_OF_PAIR = (
    {"a": of_pair(ACTIVATIONS, 0), "b": of_pair(ACTIVATIONS, 1)}
    if RUN.activations.store
    else IMAGES
    | {
        "weights_a": of_pair(rules.train.output.weights, 0),
        "weights_b": of_pair(rules.train.output.weights, 1),
    }
)


rule joint_densities:
    input:
        **VALUES_OF_PAIR,
        matching=rules.match.output.matching,
        mutual_information=rules.mutual_information.output.store,
    output:
        store=directory(f"{RESULTS}/pairs/{{pair}}/joint_densities.zarr"),
    log:
        f"{LOGS}/joint_densities/{{pair}}.log",
    conda:
        "../../envs/nets.yaml"
    threads: 1
    resources:
        **asks("joint_densities"),
        gpu=0 if RUN.activations.store else GPU,
    params:
        # The paper's figure S1 shows conv1 and conv2.
        layers=RUN.layers[:2],
        data=RUN.data.model_dump(),
        model=RUN.model.model_dump(),
        activations=RUN.activations.model_dump(exclude={"keep"}),
        seed=RUN.statistics.seed,
        device=RUN.device,
        origin=origin("statistics"),
        code=code("joint_densities.py"),
    message:
        "Joint distributions of well and badly matched units of {wildcards.pair}"
    script:
        "../scripts/joint_densities.py"


rule agreement:
    input:
        matching=rules.match.output.matching,
        correlation=CORRELATION,
        mutual_information=rules.mutual_information.output.store,
    output:
        table=f"{RESULTS}/pairs/{{pair}}/measure_agreement.csv",
    log:
        f"{LOGS}/agreement/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **asks("agreement"),
    params:
        layers=RUN.layers,
        code=code("agreement.py"),
    script:
        "../scripts/agreement.py"


rule measure_agreement:
    input:
        tables=expand(rules.agreement.output.table, pair=RUN.pairs),
    output:
        table=report(
            f"{RESULTS}/tables/measure_agreement.csv",
            caption="../report/measure_agreement.rst",
            category=ONE_TO_ONE,
            labels={"table": "measure_agreement"},
        ),
    log:
        f"{LOGS}/measure_agreement.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        code=code("by_layer.py"),
    script:
        "../scripts/by_layer.py"


rule accuracy:
    input:
        histories=expand(rules.train.output.history, net=RUN.nets),
    output:
        table=report(
            f"{RESULTS}/tables/accuracy.csv",
            caption="../report/accuracy.rst",
            category="Section 2: nets",
            labels={"table": "accuracy"},
        ),
    log:
        f"{LOGS}/accuracy.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        seeds={name: net.seed for name, net in RUN.nets.items()},
        code=code("accuracy.py"),
    script:
        "../scripts/accuracy.py"


rule unmatched:
    input:
        matches=expand(rules.match.output.matching, pair=RUN.pairs),
        statistics=expand(STATISTICS, net=RUN.nets),
    output:
        table=report(
            f"{RESULTS}/tables/unmatched.csv",
            caption="../report/unmatched.rst",
            category=ONE_TO_ONE,
            labels={"table": "unmatched"},
        ),
    log:
        f"{LOGS}/unmatched.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        pairs=RUN.pairs,
        nets=list(RUN.nets),
        code=code("unmatched.py"),
    script:
        "../scripts/unmatched.py"
