# Sparse maps between the layers of a pair: fitted exactly, and as the paper did; their clusters.


rule fit_maps:
    input:
        a=of_pair(STATISTICS, 0),
        b=of_pair(STATISTICS, 1),
        correlation=CORRELATION,
    output:
        store=directory(f"{RESULTS}/pairs/{{pair}}/mapping.zarr"),
    log:
        f"{LOGS}/fit_maps/{{pair}}.log",
    benchmark:
        f"{TIMES}/fit_maps/{{pair}}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 4 if WIDEST > 256 else 1
    resources:
        **asks("fit_maps"),
    params:
        layers=RUN.layers,
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
    benchmark:
        f"{TIMES}/fit_maps_sgd/{{pair}}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 4 if HEAVY else 1
    resources:
        **asks("fit_maps_sgd"),
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
        **asks("mapping"),
    params:
        layers=RUN.layers,
        code=code("mapping.py"),
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
        **asks("hac"),
    params:
        layers=RUN.layers,
        penalty=RUN.mapping.penalty,
        origin=origin("statistics", "mapping.decays", "mapping.penalty"),
        code=code("hac.py"),
    message:
        "Clusters of the sparse maps of {wildcards.pair}"
    script:
        "../scripts/hac.py"


rule table1:
    input:
        mappings=expand(rules.mapping.output.table, pair=RUN.pairs),
        statistics=of_pair(STATISTICS, 1),
    output:
        table=report(
            f"{RESULTS}/tables/table1.csv",
            caption="../report/table1.rst",
            category=FEW_TO_ONE,
            labels={"table": "table1", "pair": RUN.pair},
        ),
        png=report(
            f"{RESULTS}/figures/table1.png",
            caption="../report/table1.rst",
            category=FEW_TO_ONE,
            labels={"figure": "table1", "pair": RUN.pair},
        ),
        pdf=f"{RESULTS}/figures/table1.pdf",
    log:
        f"{LOGS}/table1.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        pair=RUN.pair,
        pairs=RUN.pairs,
        code=code("table1.py"),
    script:
        "../scripts/table1.py"
