# Figures of what units see, drawn as those of figures.smk are.
PICTURED = [layer for layer, units in RUN.pictures.items() if units is None]
PICTURED = PICTURED or RUN.layers


ruleorder: fig2 > draw_fig2
ruleorder: figS2 > draw_figS2
ruleorder: figS4 > draw_figS4


rule draw_fig2:
    input:
        a=of_pair(rules.units.output.store, 0),
        b=of_pair(rules.units.output.store, 1),
        matching=of_pair(rules.match.output.matching),
    output:
        figure("fig2", ONE_TO_ONE, "{pair}"),
    log:
        f"{LOGS}/fig2/{{pair}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        pair=pair_of,
        measure="correlation",
        layers=PICTURED[:3],
        code=code("matched_features.py"),
    script:
        "../scripts/matched_features.py"


use rule draw_fig2 as fig2 with:
    output:
        figure("fig2", ONE_TO_ONE, RUN.pair),
    log:
        f"{LOGS}/fig2/{RUN.pair}.log",
    localrule: True


use rule draw_fig2 as draw_figS2 with:
    output:
        figure("figS2", MORE_MATCHING, "{pair}"),
    log:
        f"{LOGS}/figS2/{{pair}}.log",
    localrule: True
    params:
        pair=pair_of,
        measure="correlation",
        layers=PICTURED,
        code=code("matched_features.py"),


use rule draw_figS2 as figS2 with:
    output:
        figure("figS2", MORE_MATCHING, RUN.pair),
    log:
        f"{LOGS}/figS2/{RUN.pair}.log",
    localrule: True


use rule draw_fig2 as draw_figS4 with:
    output:
        figure("figS4", MORE_MATCHING, "{pair}"),
    log:
        f"{LOGS}/figS4/{{pair}}.log",
    localrule: True
    params:
        pair=pair_of,
        measure="mutual_information",
        layers=PICTURED[:2],
        code=code("matched_features.py"),


use rule draw_figS4 as figS4 with:
    output:
        figure("figS4", MORE_MATCHING, RUN.pair),
    log:
        f"{LOGS}/figS4/{RUN.pair}.log",
    localrule: True


rule figS11:
    input:
        statistics=expand(STATISTICS, net=RUN.nets),
        units=expand(rules.units.output.store, net=RUN.nets),
    output:
        figure("figS11", MEAN_ACTIVATIONS, "all"),
    log:
        f"{LOGS}/figS11.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        nets=list(RUN.nets),
        layer=RUN.figures.layer,
        code=code("active_units.py"),
    script:
        "../scripts/active_units.py"


use rule figS11 as figS12 with:
    output:
        figure("figS12", MEAN_ACTIVATIONS, "all"),
    log:
        f"{LOGS}/figS12.log",
    localrule: True
    params:
        nets=list(RUN.nets),
        layer=RUN.second_layer,
        code=code("active_units.py"),
