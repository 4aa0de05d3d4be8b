# Figures of the spectral clusters (section S.3), drawn as those of figures.smk are.


ruleorder: figS5 > draw_figS5
ruleorder: figS9 > draw_figS9
ruleorder: eigenvalues > draw_eigenvalues
ruleorder: figS6 > draw_figS6
ruleorder: figS7 > draw_figS7
ruleorder: figS8 > draw_figS8


rule draw_figS5:
    input:
        a=of_pair(STATISTICS, 0),
        b=of_pair(STATISTICS, 1),
        correlation=of_pair(CORRELATION),
        clusters=of_pair(rules.cluster.output.clusters),
    output:
        figure("figS5", MANY_TO_MANY, "{pair}"),
    log:
        f"{LOGS}/figS5/{{pair}}.log",
    localrule: QUICK
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("figure"),
    params:
        pair=pair_of,
        layers=RUN.layers,
        code=code("figS5.py"),
    script:
        "../scripts/figS5.py"


use rule draw_figS5 as figS5 with:
    output:
        figure("figS5", MANY_TO_MANY, RUN.pair),
    log:
        f"{LOGS}/figS5/{RUN.pair}.log",
    localrule: QUICK


rule draw_figS9:
    input:
        similarity=of_pair(rules.cluster.output.similarity),
    output:
        figure("figS9", MANY_TO_MANY, "{pair}"),
    log:
        f"{LOGS}/figS9/{{pair}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        pair=pair_of,
        layers=RUN.layers,
        code=code("figS9.py"),
    script:
        "../scripts/figS9.py"


use rule draw_figS9 as figS9 with:
    output:
        figure("figS9", MANY_TO_MANY, RUN.pair),
    log:
        f"{LOGS}/figS9/{RUN.pair}.log",
    localrule: True


rule draw_eigenvalues:
    input:
        eigenvalues=of_pair(rules.cluster.output.eigenvalues),
        stability=of_pair(rules.cluster.output.stability),
    output:
        figure("eigenvalues", MANY_TO_MANY, "{pair}"),
    log:
        f"{LOGS}/eigenvalues/{{pair}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        pair=pair_of,
        clusters=RUN.clusters,
        code=code("eigenvalues.py"),
    script:
        "../scripts/eigenvalues.py"


use rule draw_eigenvalues as eigenvalues with:
    output:
        figure("eigenvalues", MANY_TO_MANY, RUN.pair),
    log:
        f"{LOGS}/eigenvalues/{RUN.pair}.log",
    localrule: True


rule draw_figS6:
    input:
        a=of_pair(rules.units.output.store, 0),
        b=of_pair(rules.units.output.store, 1),
        clusters=of_pair(rules.cluster.output.clusters),
        similarity=of_pair(rules.cluster.output.similarity),
    output:
        figure("figS6", MANY_TO_MANY, "{pair}"),
    log:
        f"{LOGS}/figS6/{{pair}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        pair=pair_of,
        layer=RUN.figures.layer,
        # The paper shows the filters of conv1.
        kind="filters" if RUN.figures.layer == "conv1" else "patches",
        number=12,
        code=code("shared_clusters.py"),
    script:
        "../scripts/shared_clusters.py"


use rule draw_figS6 as figS6 with:
    output:
        figure("figS6", MANY_TO_MANY, RUN.pair),
    log:
        f"{LOGS}/figS6/{RUN.pair}.log",
    localrule: True


use rule draw_figS6 as draw_figS7 with:
    output:
        figure("figS7", MANY_TO_MANY, "{pair}"),
    log:
        f"{LOGS}/figS7/{{pair}}.log",
    localrule: True
    params:
        pair=pair_of,
        layer=RUN.second_layer,
        kind="patches",
        number=8,
        code=code("shared_clusters.py"),


use rule draw_figS7 as figS7 with:
    output:
        figure("figS7", MANY_TO_MANY, RUN.pair),
    log:
        f"{LOGS}/figS7/{RUN.pair}.log",
    localrule: True


rule draw_figS8:
    input:
        a=of_pair(rules.units.output.store, 0),
        b=of_pair(rules.units.output.store, 1),
        clusters=of_pair(rules.cluster.output.clusters),
        similarity=of_pair(rules.cluster.output.similarity),
    output:
        figure("figS8", MANY_TO_MANY, "{pair}"),
    log:
        f"{LOGS}/figS8/{{pair}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        pair=pair_of,
        layer=RUN.second_layer,
        code=code("figS8.py"),
    script:
        "../scripts/figS8.py"


use rule draw_figS8 as figS8 with:
    output:
        figure("figS8", MANY_TO_MANY, RUN.pair),
    log:
        f"{LOGS}/figS8/{RUN.pair}.log",
    localrule: True
