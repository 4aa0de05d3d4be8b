# Figures redraw from reduced results; each is a target by its bare name.

# Drawn for a pair; the bare name draws the first pair, or the one that figures.pair names.
PAIR_FIGURES = ["fig1", "fig3", "figS3"]
# Drawn over all nets.
RUN_FIGURES = ["fig4", "figS10"]
FIGURE = f"{RESULTS}/figures/{{pair}}/{{name}}.{{suffix}}"


rule draw_fig1:
    input:
        a=of_pair(rules.statistics.output.store, 0),
        b=of_pair(rules.statistics.output.store, 1),
        correlation=rules.correlation.output.store,
        matching=rules.match.output.matching,
    output:
        figure("fig1", "Section 3: one to one", pair="{pair}"),
    log:
        f"{LOGS}/fig1/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        layer=RUN.figures.layer,
        code=code("fig1.py"),
    script:
        "../scripts/fig1.py"


rule draw_fig3:
    input:
        matching=rules.match.output.matching,
    output:
        figure("fig3", "Section 3: one to one", pair="{pair}"),
    log:
        f"{LOGS}/fig3/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        layers=[RUN.figures.layer],
        code=code("matched_values.py"),
    script:
        "../scripts/matched_values.py"


use rule draw_fig3 as draw_figS3 with:
    output:
        figure("figS3", "Section S.2: more matching", pair="{pair}"),
    log:
        f"{LOGS}/figS3/{{pair}}.log",
    params:
        # The other layers; the only one when there is no other.
        layers=[l for l in RUN.layers if l != RUN.figures.layer] or RUN.layers,
        code=code("matched_values.py"),


rule fig4:
    input:
        matches=expand(rules.match.output.matching, pair=RUN.pairs),
    output:
        figure("fig4", "Section 3: one to one"),
    log:
        f"{LOGS}/fig4.log",
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
        statistics=expand(rules.statistics.output.store, net=RUN.nets),
    output:
        figure("figS10", "Section S.4: mean activations"),
    log:
        f"{LOGS}/figS10.log",
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
