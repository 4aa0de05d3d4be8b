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


rule mutual_information_within:
    input:
        a=rules.statistics.output.store,
    output:
        store=directory(f"{RESULTS}/nets/{{net}}/mutual_information.zarr"),
    log:
        f"{LOGS}/mutual_information/{{net}}.log",
    benchmark:
        f"{TIMES}/mutual_information/{{net}}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 4 if HEAVY else 1
    resources:
        mem_mb=information_mb,
        runtime=240,
        gpu=ASKED_GPU,
    params:
        layers=RUN.layers,
        device="cuda" if ASKED_GPU else "cpu",
        code=code("mutual_information.py"),
    message:
        "Mutual information within {wildcards.net}"
    script:
        "../scripts/mutual_information.py"


use rule mutual_information_within as mutual_information with:
    input:
        a=of_pair(rules.statistics.output.store, 0),
        b=of_pair(rules.statistics.output.store, 1),
    output:
        store=directory(f"{RESULTS}/pairs/{{pair}}/mutual_information.zarr"),
    log:
        f"{LOGS}/mutual_information/{{pair}}.log",
    benchmark:
        f"{TIMES}/mutual_information/{{pair}}.tsv"
    message:
        "Mutual information between {wildcards.pair}"


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
        options=RUN.statistics.model_dump(exclude={"samples", "binning"}),
        code=code("correlation.py"),
    message:
        "Correlations between {wildcards.pair}"
    script:
        "../scripts/correlation.py"
