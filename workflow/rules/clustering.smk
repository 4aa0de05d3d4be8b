# Many to many: spectral clusters of the units of both nets (section S.3).


rule cluster:
    input:
        a=of_pair(STATISTICS, 0),
        b=of_pair(STATISTICS, 1),
        correlation=CORRELATION,
    output:
        clusters=f"{RESULTS}/pairs/{{pair}}/clusters.csv",
        similarity=f"{RESULTS}/pairs/{{pair}}/cluster_similarity.csv",
        eigenvalues=f"{RESULTS}/pairs/{{pair}}/eigenvalues.csv",
        stability=f"{RESULTS}/pairs/{{pair}}/cluster_stability.csv",
    log:
        f"{LOGS}/cluster/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: threads_for("cluster")
    resources:
        **resources_for("cluster"),
    params:
        clusters=clusters_of,
        threshold=RUN.clustering.threshold,
        alpha=RUN.clustering.alpha,
        seed=RUN.statistics.seed,
        code=code("cluster.py"),
    message:
        "Spectral clusters of {wildcards.pair}"
    script:
        "../scripts/cluster.py"


# What sparse maps and clusters show by chance; asked for by name, as draws are fits anew.
SIGNIFICANCE_OF_MAPS = f"{RESULTS}/pairs/{{pair}}/significance_maps.csv"


rule compare_maps:
    input:
        statistics_a=of_pair(STATISTICS, 0),
        statistics_b=of_pair(STATISTICS, 1),
        correlation=CORRELATION,
        activations_a=where_stored(ACTIVATIONS, 0),
        activations_b=where_stored(ACTIVATIONS, 1),
        untrained_a=where_controlled(UNTRAINED, 0),
        untrained_b=where_controlled(UNTRAINED, 1),
        controls=where_controlled(CONTROLS),
    output:
        table=SIGNIFICANCE_OF_MAPS,
    log:
        f"{LOGS}/compare_maps/{{pair}}.log",
    conda:
        "../../envs/nets.yaml"
    threads: threads_for("fit_maps")
    resources:
        **resources_for("compare_maps"),
    params:
        clusters=clusters_of,
        threshold=RUN.clustering.threshold,
        alpha=RUN.clustering.alpha,
        decays=RUN.mapping.decays,
        penalty=RUN.mapping.penalty,
        statistics_seed=RUN.statistics.seed,
        nulls=RUN.nulls.model_dump(include={"maps", "level", "seed"}),
        code=code("significance_maps.py", modules=MEASURE_MODULES),
    message:
        "Chance level of the sparse maps and clusters of {wildcards.pair}"
    script:
        "../scripts/significance_maps.py"


rule significance_of_maps:
    input:
        expand(SIGNIFICANCE_OF_MAPS, pair=RUN.pair),
    localrule: True
    message:
        f"Chance level of the sparse maps and clusters of {RUN.pair}"
