# Figures of the sparse maps (section 4), drawn as those of figures.smk are.


ruleorder: fig5 > draw_fig5
ruleorder: fig6 > draw_fig6
ruleorder: fig7 > draw_fig7
ruleorder: sparse_loss > draw_sparse_loss


rule draw_fig5:
    input:
        mapping=of_pair(rules.fit_maps.output.store),
    output:
        figure("fig5", FEW_TO_ONE, "{pair}"),
    log:
        f"{LOGS}/fig5/{{pair}}.log",
    localrule: QUICK
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("figure"),
    params:
        pair=pair_of,
        layers=RUN.layers,
        penalty=RUN.mapping.penalty,
        code=code("fig5.py"),
    script:
        "../scripts/fig5.py"


use rule draw_fig5 as fig5 with:
    output:
        figure("fig5", FEW_TO_ONE, RUN.pair),
    log:
        f"{LOGS}/fig5/{RUN.pair}.log",
    localrule: QUICK


rule draw_fig6:
    input:
        mapping=of_pair(rules.fit_maps.output.store),
        units_a=of_pair(rules.units.output.store, 0),
        units_b=of_pair(rules.units.output.store, 1),
    output:
        figure("fig6", FEW_TO_ONE, "{pair}"),
    log:
        f"{LOGS}/fig6/{{pair}}.log",
    localrule: QUICK
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("figure"),
    params:
        pair=pair_of,
        layer=RUN.figures.layer,
        penalty=RUN.mapping.penalty,
        code=code("fig6.py"),
    script:
        "../scripts/fig6.py"


use rule draw_fig6 as fig6 with:
    output:
        figure("fig6", FEW_TO_ONE, RUN.pair),
    log:
        f"{LOGS}/fig6/{RUN.pair}.log",
    localrule: QUICK


rule draw_fig7:
    input:
        mapping=of_pair(rules.fit_maps.output.store),
        hac=of_pair(rules.hac.output.store),
        units_a=of_pair(rules.units.output.store, 0),
        units_b=of_pair(rules.units.output.store, 1),
    output:
        figure("fig7", FEW_TO_ONE, "{pair}"),
    log:
        f"{LOGS}/fig7/{{pair}}.log",
    localrule: QUICK
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("figure"),
    params:
        pair=pair_of,
        layer=RUN.figures.layer,
        penalty=RUN.mapping.penalty,
        code=code("fig7.py"),
    script:
        "../scripts/fig7.py"


use rule draw_fig7 as fig7 with:
    output:
        figure("fig7", FEW_TO_ONE, RUN.pair),
    log:
        f"{LOGS}/fig7/{RUN.pair}.log",
    localrule: QUICK


rule draw_sparse_loss:
    input:
        table=of_pair(rules.mapping.output.table),
    output:
        figure("sparse_loss", FEW_TO_ONE, "{pair}"),
    log:
        f"{LOGS}/sparse_loss/{{pair}}.log",
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
        code=code("sparse_loss.py"),
    script:
        "../scripts/sparse_loss.py"


use rule draw_sparse_loss as sparse_loss with:
    output:
        figure("sparse_loss", FEW_TO_ONE, RUN.pair),
    log:
        f"{LOGS}/sparse_loss/{RUN.pair}.log",
    localrule: True
