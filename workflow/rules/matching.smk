# Match the units of a pair one to one, and compare the measures.


rule match:
    input:
        **MATRICES,
    output:
        matching=f"{RESULTS}/pairs/{{pair}}/matching.csv",
    log:
        f"{LOGS}/match/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("match"),
    params:
        layers=layers_of,
        measures=list(MATRICES),
        code=code("match.py"),
    message:
        "Matching the units of {wildcards.pair}"
    script:
        "../scripts/match.py"


# Sources of both nets' activations: their stores or, without stores, the nets.
VALUES_OF_PAIR = (
    {"a": of_pair(ACTIVATIONS, 0), "b": of_pair(ACTIVATIONS, 1)}
    if RUN.activations.store
    else IMAGES
    | {
        "weights_a": of_pair(WEIGHTS, 0),
        "weights_b": of_pair(WEIGHTS, 1),
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
        **resources_for("joint_densities"),
        gpu=0 if RUN.activations.store else GPU,
    params:
        # The paper's figure S1 shows conv1 and conv2.
        layers=lambda wildcards: layers_of(wildcards)[:2],
        nets=lambda wildcards: [
            {
                "net": FORMS[name],
                "data": NODES[name].data.model_dump(),
                "places": NODES[name].places,
            }
            for name in nets_of_pair(wildcards)
        ],
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
        **MATRICES,
        matching=rules.match.output.matching,
    output:
        table=f"{RESULTS}/pairs/{{pair}}/measure_agreement.csv",
    log:
        f"{LOGS}/agreement/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("agreement"),
    params:
        layers=layers_of,
        measures=list(MATRICES),
        code=code("agreement.py"),
    message:
        "Agreement of the measures on {wildcards.pair}"
    script:
        "../scripts/agreement.py"
