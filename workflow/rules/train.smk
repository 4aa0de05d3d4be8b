# Find the shapes of the layers, list the images once, and train one net per seed.

# Image folders are read in place; other data sets are stored in one file of pixels.
IMAGES = {"listing": f"{RESULTS}/images.csv"}
if not RUN.data.is_folder:
    IMAGES["pixels"] = f"{RESULTS}/images.npz"
# List of files in image folders that are not images.
LEFT_OUT = {"left_out": f"{RESULTS}/left_out.csv"} if RUN.data.is_folder else {}


rule images:
    input:
        image_sources(RUN),
    output:
        **IMAGES,
        **LEFT_OUT,
    log:
        f"{LOGS}/images.log",
    benchmark:
        f"{TIMES}/images.tsv"
    # The other data sets are small, and CIFAR-10 may have to be downloaded.
    localrule: not RUN.data.is_folder
    conda:
        "../../envs/nets.yaml"
    threads: 4 if RUN.data.is_folder else 1
    resources:
        **resources_for("images"),
    params:
        name=RUN.data.name,
        root=RUN.data.root,
        # Split into training and validation images, for data sets that come without one.
        split={} if RUN.data.is_folder else RUN.data.split,
        code=code("images.py"),
    message:
        "Listing and checking the images of {params.name}"
    script:
        "../scripts/images.py"


rule layers:
    output:
        layers=SHAPES_FILE,
        costs=f"{RESULTS}/nets/{{net}}/costs.json",
    log:
        f"{LOGS}/layers/{{net}}.log",
    benchmark:
        f"{TIMES}/layers/{{net}}.tsv"
    localrule: True
    conda:
        "../../envs/nets.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        net=RUN.net_options,
        # As in training, which a fingerprint would list again after every edit.
        code=RECIPE,
    message:
        "Shapes of the layers of {wildcards.net}"
    script:
        "../scripts/layers.py"


rule train:
    input:
        **IMAGES,
        # Shapes are checked before any net is trained. (With ancient(), Snakemake would overlook
        # changed params of all later jobs whenever the rule layers runs again.)
        layers=SHAPES_FILE,
    output:
        weights=f"{RESULTS}/nets/{{net}}/weights.pt",
        history=f"{RESULTS}/nets/{{net}}/history.csv",
    log:
        f"{LOGS}/train/{{net}}.log",
    benchmark:
        f"{TIMES}/train/{{net}}.tsv"
    conda:
        "../../envs/nets.yaml"
    threads: 1 + RUN.training.workers
    resources:
        **resources_for("train"),
        gpu=GPU,
    params:
        seed=lambda wildcards: RUN.nets[wildcards.net].seed,
        data=RUN.data.model_dump(),
        model=RUN.model.model_dump(),
        # Workers do not affect the weights; the script starts one for each thread except its own.
        training=RUN.training.model_dump(exclude={"workers"}),
        device=RUN.device,
        # Not a fingerprint, so that nets are trained again only if their weights would change.
        code=RECIPE,
        checkpoints=f"{RESULTS}/nets/{{net}}/checkpoints",
    message:
        "Training {wildcards.net} from seed {params.seed}"
    script:
        "../scripts/train.py"
