# A single file with all figures, tables and captions. Snakemake's own report would be twice as
# large (11 MB for the default run) and show the same script beside every figure.
from convergent.figures.entries import CaptionError, Shown, describe

# Files of figures and tables, in the order of their lists. What is made only by name is shown if it
# is there, so that a report asks for none of it.
REPORTED = {}
try:
    for name, row in FIGURES.items():
        path = FIGURE_OF_PAIR if row.of_pair else FIGURE_OF_RUN
        file = path.format(pair=RUN.pair, name=name, suffix="png")
        if is_shown(file, row):
            shown = Shown(RUN, tuple(RUN.pair.split("-")) if row.of_pair else ())
            REPORTED[file] = describe(name, row, shown)
    for name, row in TABLES.items():
        file = f"{RESULTS}/tables/{name}.csv"
        if not is_shown(file, row):
            continue
        REPORTED[file] = describe(name, row, Shown(RUN), "table")
        if row.draw:
            file = FIGURE_OF_RUN.format(name=name, suffix="png")
            REPORTED[file] = describe(name, row, Shown(RUN))
except CaptionError as error:
    raise WorkflowError(str(error)) from None


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
        "Report of {params.run}"
    script:
        "../scripts/report.py"
