# Sparse maps between the layers of a pair, fitted exactly and by the paper's SGD, and clusters of
# the units that they connect.


rule fit_maps:
    input:
        a=of_pair(STATISTICS, 0),
        b=of_pair(STATISTICS, 1),
        correlation=CORRELATION,
    output:
        store=directory(f"{RESULTS}/pairs/{{pair}}/mapping.zarr"),
    log:
        f"{LOGS}/fit_maps/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: threads_for("fit_maps")
    resources:
        **resources_for("fit_maps"),
    params:
        layers=layers_of,
        decays=RUN.mapping.decays,
        origin=origin("statistics", "mapping.decays"),
        code=code("fit_maps.py"),
    message:
        "Sparse maps of {wildcards.pair}"
    script:
        "../scripts/fit_maps.py"


rule fit_maps_sgd:
    input:
        a=of_pair(ACTIVATIONS, 0),
        b=of_pair(ACTIVATIONS, 1),
        statistics_a=of_pair(STATISTICS, 0),
        statistics_b=of_pair(STATISTICS, 1),
        correlation=CORRELATION,
    output:
        store=directory(f"{RESULTS}/pairs/{{pair}}/mapping_sgd.zarr"),
    log:
        f"{LOGS}/fit_maps_sgd/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: threads_for("fit_maps_sgd")
    resources:
        **resources_for("fit_maps_sgd"),
    params:
        layers=RUN.sgd_layers,
        iterations=RUN.mapping.sgd.iterations,
        decays=RUN.sgd_decays,
        seed=RUN.statistics.seed,
        origin=origin("statistics", "mapping.sgd"),
        code=code("fit_maps_sgd.py"),
    message:
        "Sparse maps of {wildcards.pair} by the paper's SGD: {params.layers}"
    script:
        "../scripts/fit_maps_sgd.py"


rule mapping:
    input:
        exact=rules.fit_maps.output.store,
        sgd=where_sgd(rules.fit_maps_sgd.output.store),
    output:
        table=f"{RESULTS}/pairs/{{pair}}/mapping.csv",
    log:
        f"{LOGS}/mapping/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("mapping"),
    params:
        layers=layers_of,
        code=code("mapping.py"),
    message:
        "Table of the sparse maps of {wildcards.pair}"
    script:
        "../scripts/mapping.py"


rule hac:
    input:
        mapping=rules.fit_maps.output.store,
    output:
        store=directory(f"{RESULTS}/pairs/{{pair}}/hac.zarr"),
    log:
        f"{LOGS}/hac/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("hac"),
    params:
        layers=layers_of,
        penalty=RUN.mapping.penalty,
        origin=origin("statistics", "mapping.decays", "mapping.penalty"),
        code=code("hac.py"),
    message:
        "Clusters of the sparse maps of {wildcards.pair}"
    script:
        "../scripts/hac.py"
