# Tell the shapes of layers and list the images once, then train one net per seed.

# Image folders are read where they are; other data sets become one file of pixels.
IMAGES = {"listing": f"{RESULTS}/images.csv"}
if not RUN.data.is_folder:
    IMAGES["pixels"] = f"{RESULTS}/images.npz"
# What is no image in a folder of images.
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
        # What draws the validation images of data sets that have none of their own.
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
        # As training has it, which would be listed again with every edit.
        code=RECIPE,
    message:
        "Shapes of the layers of {wildcards.net}"
    script:
        "../scripts/layers.py"


rule train:
    input:
        **IMAGES,
        # Checked against the configuration before anything is trained. (Not ancient(): where rule
        # layers runs again, Snakemake then overlooks changed params of all that follows.)
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
        # Workers decide nothing; the script has one for each thread but its own.
        training=RUN.training.model_dump(exclude={"workers"}),
        device=RUN.device,
        # Not a fingerprint: nets are trained anew where their weights would change, and only there.
        code=RECIPE,
        checkpoints=f"{RESULTS}/nets/{{net}}/checkpoints",
    message:
        "Training {wildcards.net} from seed {params.seed}"
    script:
        "../scripts/train.py"
