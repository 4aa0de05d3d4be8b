# The images that excite each unit most, with patches and deconvolutions.


rule units:
    input:
        **IMAGES,
        statistics=STATISTICS,
        weights=WEIGHTS,
    output:
        store=directory(f"{RESULTS}/units/{{net}}.zarr"),
    log:
        f"{LOGS}/units/{{net}}.log",
    conda:
        "../../envs/nets.yaml"
    threads: threads_for("units")
    resources:
        **resources_for("units"),
        gpu=GPU if RUN.pictures else 0,
    params:
        layers=layers_of,
        places=places_of,
        pictures=RUN.pictures,
        data=data_of,
        net=net_of,
        images=RUN.activations.images,
        seed=RUN.statistics.seed,
        device=RUN.device,
        origin=origin("statistics", "units.pictures"),
        code=code("units.py"),
    message:
        "Strongest images, patches and deconvolutions of the units of {wildcards.net}"
    script:
        "../scripts/units.py"
