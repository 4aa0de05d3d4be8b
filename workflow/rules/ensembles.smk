# Average the answers of the nets, and measure how alike those of each ensemble are.
ENSEMBLES = f"{RESULTS}/ensembles.csv"
# Nets that give the run's classes, and share layers with the pair of the figures if its nets do.
OF_PAIR = {*RUN.layers_of_pair(RUN.pair)}
MEMBERS = [
    name
    for name in SUBJECTS
    if NODES[name].own.classes != []
    and not (OF_PAIR and OF_PAIR.isdisjoint(NODES[name].places))
]
PAIRS_OF_MEMBERS = [
    pair for pair, nets in PAIRS.items() if all(name in MEMBERS for name in nets)
]


rule score_ensembles:
    input:
        **IMAGES,
        weights=expand(WEIGHTS, net=MEMBERS),
        correlations=expand(CORRELATION, pair=PAIRS_OF_MEMBERS),
    output:
        table=ENSEMBLES,
    log:
        f"{LOGS}/score_ensembles.log",
    conda:
        "../../envs/nets.yaml"
    threads: 1 + RUN.training.workers
    resources:
        **resources_for("ensembles"),
        gpu=GPU,
    params:
        nets={name: form_of_job(name) for name in MEMBERS},
        pairs=[
            (list(PAIRS[pair]), RUN.layers_of_pair(pair)) for pair in PAIRS_OF_MEMBERS
        ],
        layers=RUN.layers_of(*MEMBERS) if MEMBERS else [],
        ensembles=RUN.ensembles.model_dump(),
        blocks=RUN.statistics.blocks,
        images=RUN.activations.images,
        batch_size=RUN.activations.batch_size,
        seed=RUN.statistics.seed,
        device=RUN.device,
        code=code("ensembles.py"),
    message:
        f"Ensembles of {len(MEMBERS)} nets"
    script:
        "../scripts/ensembles.py"
