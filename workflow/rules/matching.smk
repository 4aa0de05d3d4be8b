# Align the units of a pair one to one, and sum up over pairs.


rule match:
    input:
        correlation=rules.correlation.output.store,
    output:
        matching=f"{RESULTS}/pairs/{{pair}}/matching.csv",
    log:
        f"{LOGS}/match/{{pair}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500 + 40 * WIDEST**2 // 10**6,
        runtime=30,
    params:
        layers=RUN.layers,
        code=code("match.py"),
    message:
        "Matching the units of {wildcards.pair}"
    script:
        "../scripts/match.py"


rule accuracy:
    input:
        histories=expand(rules.train.output.history, net=RUN.nets),
    output:
        table=report(
            f"{RESULTS}/tables/accuracy.csv",
            caption="../report/accuracy.rst",
            category="Section 2: nets",
            labels={"table": "accuracy"},
        ),
    log:
        f"{LOGS}/accuracy.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        seeds={name: net.seed for name, net in RUN.nets.items()},
        code=code("accuracy.py"),
    script:
        "../scripts/accuracy.py"


rule unmatched:
    input:
        matches=expand(rules.match.output.matching, pair=RUN.pairs),
        statistics=expand(rules.statistics.output.store, net=RUN.nets),
    output:
        table=report(
            f"{RESULTS}/tables/unmatched.csv",
            caption="../report/unmatched.rst",
            category="Section 3: one to one",
            labels={"table": "unmatched"},
        ),
    log:
        f"{LOGS}/unmatched.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        pairs=RUN.pairs,
        nets=list(RUN.nets),
        code=code("unmatched.py"),
    script:
        "../scripts/unmatched.py"
