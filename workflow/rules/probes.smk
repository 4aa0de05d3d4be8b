# Run the nets on other forms of the validation images, and see whether partners stay partners. The
# nets run side by side, so that a probe costs one job.
from convergent.nets.probes import PLAIN

PROBES = {PLAIN: {}} | RUN.probes
# Nets of the pairs that averages mean.
PROBED = list(dict.fromkeys(net for pair in OF_SUBJECTS for net in PAIRS[pair]))
ON_PROBE = f"{RESULTS}/probes/{{probe}}"
PROBE_TABLE = f"{RESULTS}/probes/probes.csv"
NOT_PROBED = (
    ""
    if RUN.probes
    else "probes: data.probes names no other images, such as {noise: {noise: 0.2}}"
)


rule observe_probe:
    input:
        **IMAGES,
        weights=expand(WEIGHTS, net=PROBED),
    output:
        folder=directory(ON_PROBE),
    log:
        f"{LOGS}/observe_probe/{{probe}}.log",
    wildcard_constraints:
        probe="|".join(PROBES).replace(".", "[.]"),
    conda:
        "../../envs/nets.yaml"
    threads: lambda wildcards: max(estimates().threads("observe"), 1 + RUN.training.workers)
    resources:
        **resources_for("observe_probe"),
        gpu=GPU,
    params:
        nets=lambda wildcards: {
            name: form_of_job(name, probe=PROBES[wildcards.probe]) for name in PROBED
        },
        snapshot=None,
        layers=RUN.layer_names,
        activations=RUN.activations.model_dump(exclude={"store", "keep"}),
        blocks=RUN.statistics.blocks,
        seed=RUN.statistics.seed,
        device=RUN.device,
        origin=origin("statistics", nets=PROBED),
        code=code("observe_nets.py"),
    message:
        "Observing nets on other images: {wildcards.probe}"
    script:
        "../scripts/observe_nets.py"


rule compare_probes:
    input:
        probes=expand(ON_PROBE, probe=PROBES) if RUN.probes else refused(NOT_PROBED),
    output:
        table=PROBE_TABLE,
    log:
        f"{LOGS}/compare_probes.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("compare_probes"),
    params:
        probes=list(PROBES),
        layers=RUN.layer_names,
        draws=RUN.dynamics.draws,
        level=RUN.nulls.level,
        seed=RUN.nulls.seed,
        code=code("probes.py"),
    message:
        f"Partners on {len(PROBES)} sets of images"
    script:
        "../scripts/probes.py"
