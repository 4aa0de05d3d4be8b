# List the images once, find the shapes of the layers, and make each net: trained from its seed,
# left untrained, taken from another's training, or brought. Then measure its accuracy.

# Image folders are read in place; other data sets are stored in one file of pixels.
IMAGES = {"listing": f"{RESULTS}/images.csv"}
if not RUN.data.is_folder:
    IMAGES["pixels"] = f"{RESULTS}/images.npz"
# List of files in image folders that are not images.
LEFT_OUT = {"left_out": f"{RESULTS}/left_out.csv"} if RUN.data.is_folder else {}


rule images:
    input:
        image_sources(RUN, RUN.trains),
    output:
        **IMAGES,
        **LEFT_OUT,
    log:
        f"{LOGS}/images.log",
    # The other data sets are small, and CIFAR-10 may have to be downloaded. Every training waits.
    priority: 0 if RUN.data.is_folder else 11
    localrule: not RUN.data.is_folder
    conda:
        "../../envs/nets.yaml"
    threads: 4 if RUN.data.is_folder else 1
    resources:
        **resources_for("images"),
    params:
        **(
            {}
            if RUN.data.labels and RUN.trains
            else {"labels": RUN.data.labels, "trains": RUN.trains}
        ),
        name=RUN.data.name,
        root=RUN.data.root,
        # Split into training and validation images, for data sets that come without one.
        split={} if RUN.data.is_folder else RUN.data.split,
        code=code("images.py"),
    message:
        "Listing and checking the images of {params.name}"
    script:
        "../scripts/images.py"


rule shapes:
    output:
        layers=SHAPES_FILE,
        costs=f"{RESULTS}/nets/{{net}}/costs.json",
    log:
        f"{LOGS}/shapes/{{net}}.log",
    # Faults of any net are told before another is trained.
    priority: 10
    localrule: True
    conda:
        "../../envs/nets.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        net=net_of,
        places=places_of,
        # As in training, which a fingerprint would list again after every edit.
        code=RECIPE,
    message:
        "Shapes of the layers of {wildcards.net}"
    script:
        "../scripts/layers.py"


# Weights of the epochs that `training.snapshots` names.
SNAPSHOTS = f"{RESULTS}/nets/{{net}}/snapshots"
KEEPING = [
    name
    for name, node in NODES.items()
    if node.kind == "trained" and node.training.kept
]
TRAINED = [
    name
    for name, node in NODES.items()
    if node.kind == "trained" and name not in KEEPING
]


rule train:
    input:
        **IMAGES,
        # Shapes are checked before any net is trained. (With ancient(), Snakemake would overlook
        # changed params of all later jobs whenever the rule shapes runs again.)
        layers=SHAPES_FILE,
    output:
        weights=WEIGHTS,
        history=HISTORY,
    log:
        f"{LOGS}/train/{{net}}.log",
    wildcard_constraints:
        net="|".join(TRAINED) or "(?!)",
    conda:
        "../../envs/nets.yaml"
    threads: lambda wildcards: 1 + NODES[wildcards.net].training.workers
    resources:
        **resources_for("train"),
        gpu=GPU,
    params:
        seed=lambda wildcards: NODES[wildcards.net].seed,
        data=data_of,
        net=net_of,
        # Workers do not affect the weights; the script starts one for each thread except its own.
        training=lambda wildcards: NODES[wildcards.net].training.model_dump(
            exclude={"workers"}
        ),
        device=RUN.device,
        # Not a fingerprint, so that nets are trained again only if their weights would change.
        code=RECIPE,
        checkpoints=f"{RESULTS}/nets/{{net}}/checkpoints",
    message:
        "Training {wildcards.net} from seed {params.seed}"
    script:
        "../scripts/train.py"


if KEEPING:

    use rule train as train_with_snapshots with:
        output:
            weights=WEIGHTS,
            history=HISTORY,
            snapshots=directory(SNAPSHOTS),
        wildcard_constraints:
            net="|".join(KEEPING),


rule initialize:
    input:
        listing=IMAGES["listing"],
        layers=SHAPES_FILE,
    output:
        weights=WEIGHTS,
    log:
        f"{LOGS}/initialize/{{net}}.log",
    wildcard_constraints:
        net=nets_that_are("untrained"),
    localrule: True
    conda:
        "../../envs/nets.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=10,
    params:
        seed=lambda wildcards: NODES[wildcards.net].seed,
        net=net_of,
        code=RECIPE,
    message:
        "Initial weights of {wildcards.net} from seed {params.seed}"
    script:
        "../scripts/initialize.py"


rule snapshot:
    input:
        snapshots=lambda wildcards: SNAPSHOTS.format(net=NODES[wildcards.net].of.name),
        layers=SHAPES_FILE,
    output:
        weights=WEIGHTS,
    log:
        f"{LOGS}/snapshot/{{net}}.log",
    wildcard_constraints:
        net=nets_that_are("snapshot"),
    localrule: True
    conda:
        "../../envs/nets.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=10,
    params:
        of=lambda wildcards: NODES[wildcards.net].of.name,
        epoch=lambda wildcards: NODES[wildcards.net].epoch,
        code=code("snapshot.py"),
    message:
        "{wildcards.net}: {params.of} after epoch {params.epoch}"
    script:
        "../scripts/snapshot.py"


rule adopt:
    input:
        # Snakemake compares the hash of the file, not its time.
        file=lambda wildcards: ancient(NODES[wildcards.net].own.weights),
        listing=IMAGES["listing"],
        layers=SHAPES_FILE,
    output:
        weights=WEIGHTS,
    log:
        f"{LOGS}/adopt/{{net}}.log",
    wildcard_constraints:
        net=nets_that_are("brought"),
    priority: 1
    localrule: True
    conda:
        "../../envs/nets.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=10,
    params:
        net=net_of,
        state=lambda wildcards: NODES[wildcards.net].own.state,
        prefix=lambda wildcards: NODES[wildcards.net].own.prefix,
        contents=lambda wildcards: CONTENTS[wildcards.net],
        code=code("adopt.py"),
    message:
        "Reading the weights of {wildcards.net}"
    script:
        "../scripts/adopt.py"


rule evaluate:
    input:
        **IMAGES,
        weights=WEIGHTS,
    output:
        evaluation=EVALUATION,
    log:
        f"{LOGS}/evaluate/{{net}}.log",
    priority: 1
    conda:
        "../../envs/nets.yaml"
    threads: lambda wildcards: 1 + RUN.training.workers
    resources:
        **resources_for("record"),
        gpu=GPU,
    params:
        data=data_of,
        net=net_of,
        classes=lambda wildcards: NODES[wildcards.net].own.classes,
        untrained=lambda wildcards: NODES[wildcards.net].kind == "untrained"
        or NODES[wildcards.net].epoch == 0,
        batch_size=RUN.activations.batch_size,
        device=RUN.device,
        code=code("evaluate.py"),
    message:
        "Accuracy of {wildcards.net} on the validation images"
    script:
        "../scripts/evaluate.py"
