# Follow nets along their training: at each epoch all of them run side by side, together with their
# final states, so that an epoch costs one job.
FOLLOWED, EPOCHS, NOT_FOLLOWED = followed()
AT_EPOCH = f"{RESULTS}/dynamics/{{epoch}}"
DYNAMICS = f"{RESULTS}/dynamics/dynamics.csv"
SETTLING = f"{RESULTS}/dynamics/settling.csv"
LAYERS_FOLLOWED = RUN.layers_of(*FOLLOWED) if EPOCHS else []
TOLD_EPOCHS = [f"{epoch:g}" for epoch in EPOCHS]


rule observe_epoch:
    input:
        **IMAGES,
        weights=expand(WEIGHTS, net=FOLLOWED),
        snapshots=lambda wildcards: (
            expand(SNAPSHOTS, net=FOLLOWED)
            if wildcards.epoch != TOLD_EPOCHS[-1]
            else []
        ),
    output:
        folder=directory(AT_EPOCH),
    log:
        f"{LOGS}/observe_epoch/{{epoch}}.log",
    wildcard_constraints:
        epoch="|".join(TOLD_EPOCHS).replace(".", "[.]") or "(?!)",
    conda:
        "../../envs/nets.yaml"
    threads: lambda wildcards: max(estimates().threads("observe"), 1 + RUN.training.workers)
    resources:
        **resources_for("observe_epoch"),
        gpu=GPU,
    params:
        nets={name: form_of_job(name) for name in FOLLOWED},
        snapshot=lambda wildcards: EPOCHS[TOLD_EPOCHS.index(wildcards.epoch)],
        layers=LAYERS_FOLLOWED,
        activations=RUN.activations.model_dump(exclude={"store", "keep"}),
        blocks=RUN.statistics.blocks,
        seed=RUN.statistics.seed,
        device=RUN.device,
        origin=origin("statistics", nets=FOLLOWED),
        code=code("observe_nets.py"),
    message:
        "Observing " + ", ".join(FOLLOWED) + " at epoch {wildcards.epoch}"
    script:
        "../scripts/observe_nets.py"


rule follow_training:
    input:
        epochs=expand(AT_EPOCH, epoch=TOLD_EPOCHS) or refused(NOT_FOLLOWED),
    output:
        dynamics=DYNAMICS,
        units=f"{RESULTS}/dynamics/units.csv",
        settling=SETTLING,
    log:
        f"{LOGS}/follow_training.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("follow_training"),
    params:
        epochs=EPOCHS,
        layers=LAYERS_FOLLOWED,
        rotations=RUN.nulls.rotation,
        draws=RUN.dynamics.draws,
        level=RUN.nulls.level,
        seed=RUN.nulls.seed,
        code=code("follow_training.py", modules=MEASURE_MODULES),
    message:
        f"Similarity along {len(EPOCHS)} epochs of training"
    script:
        "../scripts/follow_training.py"
