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
    benchmark:
        f"{TIMES}/cluster/{{pair}}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: threads_for("cluster")
    resources:
        **resources_for("cluster"),
    params:
        clusters=RUN.clusters,
        threshold=RUN.clustering.threshold,
        alpha=RUN.clustering.alpha,
        seed=RUN.statistics.seed,
        code=code("cluster.py"),
    message:
        "Spectral clusters of {wildcards.pair}"
    script:
        "../scripts/cluster.py"
