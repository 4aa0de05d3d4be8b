# Mutual information between units, within each net and between the nets of each pair.


rule mutual_information_within:
    input:
        a=STATISTICS,
    output:
        store=directory(f"{RESULTS}/nets/{{net}}/mutual_information.zarr"),
    log:
        f"{LOGS}/mutual_information/{{net}}.log",
    benchmark:
        f"{TIMES}/mutual_information/{{net}}.tsv"
    conda:
        "../../envs/nets.yaml"
    threads: 4 if HEAVY else 1
    resources:
        **asks("mutual_information"),
        gpu=GPU,
    params:
        layers=RUN.layers,
        device=RUN.device,
        origin=origin("statistics"),
        code=code("mutual_information.py"),
    message:
        "Mutual information within {wildcards.net}"
    script:
        "../scripts/mutual_information.py"


use rule mutual_information_within as mutual_information with:
    input:
        a=of_pair(STATISTICS, 0),
        b=of_pair(STATISTICS, 1),
    output:
        store=directory(f"{RESULTS}/pairs/{{pair}}/mutual_information.zarr"),
    log:
        f"{LOGS}/mutual_information/{{pair}}.log",
    benchmark:
        f"{TIMES}/mutual_information/{{pair}}.tsv"
    message:
        "Mutual information between {wildcards.pair}"
