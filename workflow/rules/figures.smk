# Figures redraw from reduced results. A figure of a pair is drawn by two rules: draw_... for any
# pair, and one by the figure's name for the pair that the configuration chooses. `use rule`
# takes over everything but `localrule`, so each says again that it runs on the login node.
PAIR_FIGURES = ["fig1", "fig3", "figS1", "figS3", "matched_information"]
PAIR_FIGURES += ["fig5", "fig6", "fig7", "sparse_loss"]
PAIR_FIGURES += ["figS5", "figS6", "figS7", "figS8", "figS9", "eigenvalues"]
PAIR_FIGURES += ["fig2", "figS2", "figS4"]
# Over all nets.
RUN_FIGURES = ["fig4", "figS10", "figS11", "figS12"]
FIGURE = f"{RESULTS}/figures/{{pair}}/{{name}}.{{suffix}}"


ruleorder: fig1 > draw_fig1
ruleorder: fig3 > draw_fig3
ruleorder: figS1 > draw_figS1
ruleorder: figS3 > draw_figS3
ruleorder: matched_information > draw_matched_information


rule draw_fig1:
    input:
        a=of_pair(STATISTICS, 0),
        b=of_pair(STATISTICS, 1),
        correlation=of_pair(CORRELATION),
        matching=of_pair(rules.match.output.matching),
    output:
        figure("fig1", ONE_TO_ONE, "{pair}"),
    log:
        f"{LOGS}/fig1/{{pair}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        pair=pair_of,
        layer=RUN.figures.layer,
        code=code("fig1.py"),
    script:
        "../scripts/fig1.py"


use rule draw_fig1 as fig1 with:
    output:
        figure("fig1", ONE_TO_ONE, RUN.pair),
    log:
        f"{LOGS}/fig1/{RUN.pair}.log",
    localrule: True


rule draw_fig3:
    input:
        matching=of_pair(rules.match.output.matching),
    output:
        figure("fig3", ONE_TO_ONE, "{pair}"),
    log:
        f"{LOGS}/fig3/{{pair}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        pair=pair_of,
        measure="correlation",
        layers=[RUN.figures.layer],
        code=code("matched_values.py"),
    script:
        "../scripts/matched_values.py"


use rule draw_fig3 as fig3 with:
    output:
        figure("fig3", ONE_TO_ONE, RUN.pair),
    log:
        f"{LOGS}/fig3/{RUN.pair}.log",
    localrule: True


use rule draw_fig3 as draw_figS3 with:
    output:
        figure("figS3", MORE_MATCHING, "{pair}"),
    log:
        f"{LOGS}/figS3/{{pair}}.log",
    localrule: True
    params:
        pair=pair_of,
        measure="correlation",
        # The other layers; the only one when there is no other.
        layers=[l for l in RUN.layers if l != RUN.figures.layer] or RUN.layers,
        code=code("matched_values.py"),


use rule draw_figS3 as figS3 with:
    output:
        figure("figS3", MORE_MATCHING, RUN.pair),
    log:
        f"{LOGS}/figS3/{RUN.pair}.log",
    localrule: True


use rule draw_fig3 as draw_matched_information with:
    output:
        figure("matched_information", ONE_TO_ONE, "{pair}"),
    log:
        f"{LOGS}/matched_information/{{pair}}.log",
    localrule: True
    params:
        pair=pair_of,
        measure="mutual_information",
        layers=RUN.layers,
        code=code("matched_values.py"),


use rule draw_matched_information as matched_information with:
    output:
        figure("matched_information", ONE_TO_ONE, RUN.pair),
    log:
        f"{LOGS}/matched_information/{RUN.pair}.log",
    localrule: True


rule draw_figS1:
    input:
        densities=of_pair(rules.joint_densities.output.store),
    output:
        figure("figS1", "Section S.1: activation values", "{pair}"),
    log:
        f"{LOGS}/figS1/{{pair}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        pair=pair_of,
        code=code("figS1.py"),
    script:
        "../scripts/figS1.py"


use rule draw_figS1 as figS1 with:
    output:
        figure("figS1", "Section S.1: activation values", RUN.pair),
    log:
        f"{LOGS}/figS1/{RUN.pair}.log",
    localrule: True


rule fig4:
    input:
        matches=expand(rules.match.output.matching, pair=RUN.pairs),
    output:
        figure("fig4", ONE_TO_ONE, "all"),
    log:
        f"{LOGS}/fig4.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        pairs=RUN.pairs,
        layers=RUN.layers,
        code=code("fig4.py"),
    script:
        "../scripts/fig4.py"


rule figS10:
    input:
        statistics=expand(STATISTICS, net=RUN.nets),
    output:
        figure("figS10", MEAN_ACTIVATIONS, "all"),
    log:
        f"{LOGS}/figS10.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        nets=list(RUN.nets),
        layers=RUN.layers,
        code=code("figS10.py"),
    script:
        "../scripts/figS10.py"
