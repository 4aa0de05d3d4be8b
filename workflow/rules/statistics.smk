# Reduce activations to moments: within each net once, between the nets of each pair.


rule statistics:
    input:
        activations=rules.record.output.store,
    output:
        store=directory(f"{RESULTS}/statistics/{{net}}.zarr"),
    log:
        f"{LOGS}/statistics/{{net}}.log",
    benchmark:
        f"{TIMES}/statistics/{{net}}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 4 if HEAVY else 1
    resources:
        mem_mb=reduction_mb,
        runtime=240,
    params:
        layers=RUN.layers,
        options=RUN.statistics.model_dump(),
        code=code("statistics.py"),
    message:
        "Statistics within {wildcards.net}"
    script:
        "../scripts/statistics.py"


rule correlation:
    input:
        a=of_pair(rules.record.output.store, 0),
        b=of_pair(rules.record.output.store, 1),
    output:
        store=directory(f"{RESULTS}/pairs/{{pair}}/correlation.zarr"),
    log:
        f"{LOGS}/correlation/{{pair}}.log",
    benchmark:
        f"{TIMES}/correlation/{{pair}}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 4 if HEAVY else 1
    resources:
        mem_mb=reduction_mb,
        runtime=240,
    params:
        layers=RUN.layers,
        options=RUN.statistics.model_dump(),
        code=code("correlation.py"),
    message:
        "Correlations between {wildcards.pair}"
    script:
        "../scripts/correlation.py"
