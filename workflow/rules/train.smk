# List the images once, then train one net per seed.

# Image folders are read where they are; other data sets become one file of pixels.
IMAGES = {"listing": f"{RESULTS}/images.csv"}
if not RUN.data.is_folder:
    IMAGES["pixels"] = f"{RESULTS}/images.npz"


rule images:
    input:
        image_sources(RUN),
    output:
        **IMAGES,
    log:
        f"{LOGS}/images.log",
    benchmark:
        f"{TIMES}/images.tsv"
    conda:
        "../../envs/nets.yaml"
    threads: 4 if RUN.data.is_folder else 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        name=RUN.data.name,
        root=RUN.data.root,
        validation_fraction=RUN.data.validation_fraction,
        seed=RUN.statistics.seed,
        code=code("images.py"),
    message:
        "Listing and checking the images of {params.name}"
    script:
        "../scripts/images.py"


rule train:
    input:
        **IMAGES,
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
        mem_mb=4000 + 1500 * RUN.training.workers,
        runtime=60 if RUN.data.name != "imagenet" else 7 * 24 * 60,
        gpu=GPU,
    params:
        seed=lambda wildcards: RUN.nets[wildcards.net].seed,
        data=RUN.data.model_dump(),
        model=RUN.model.model_dump(),
        training=RUN.training.model_dump(),
        device=RUN.device,
        code=code("train.py"),
        checkpoints=f"{RESULTS}/nets/{{net}}/checkpoints",
    message:
        "Training {wildcards.net} from seed {params.seed}"
    script:
        "../scripts/train.py"
