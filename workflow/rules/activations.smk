# Record what every unit of a net does on the validation images, all layers in one pass.


rule record:
    input:
        **IMAGES,
        weights=rules.train.output.weights,
    output:
        store=directory(f"{RESULTS}/activations/{{net}}.zarr"),
    log:
        f"{LOGS}/record/{{net}}.log",
    benchmark:
        f"{TIMES}/record/{{net}}.tsv"
    conda:
        "../../envs/nets.yaml"
    threads: 1 + RUN.training.workers
    resources:
        mem_mb=4000 + 500 * RUN.training.workers,
        runtime=120,
        gpu=GPU,
    params:
        layers=RUN.layers,
        data=RUN.data.model_dump(),
        model=RUN.model.model_dump(),
        recording=RUN.recording.model_dump(),
        seed=RUN.statistics.seed,
        device=RUN.device,
        code=code("record.py"),
    message:
        "Recording {wildcards.net}: {params.layers}"
    script:
        "../scripts/record.py"
