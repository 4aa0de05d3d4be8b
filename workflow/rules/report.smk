# What is reported of a run, in one file to send; last, for it asks the rules before it.
REPORTED = reported()


rule report:
    input:
        files=list(REPORTED),
    output:
        page=f"{RESULTS}/report.html",
    log:
        f"{LOGS}/report.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        run=RUN.run,
        entries=list(REPORTED.values()),
        code=code("report.py"),
    message:
        "The report of {params.run}"
    script:
        "../scripts/report.py"
