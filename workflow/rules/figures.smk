# One rule for each figure of the catalogue, where figures are added. The rule draw_<name> draws a
# figure of any pair; the rule <name> is a target that stands for the figure of the configured pair.
from convergent.figures.catalogue import FIGURES
from convergent.figures.entries import Shown


def shown_by(row, wildcards):
    """Return what a row shows: the pair of the job, or the whole run."""
    of_pair = getattr(row, "of_pair", False)
    return Shown(RUN, tuple(nets_of_pair(wildcards)) if of_pair else ())


def inputs_of(row):
    """Make the inputs of a row of the catalogue, which a job finds when it is asked for."""

    def file(key):
        def path(wildcards):
            try:
                return row.file(key, shown_by(row, wildcards), f"{RESULTS}/")
            except ConvergentError as error:
                raise WorkflowError(str(error)) from None

        return path

    return {key: file(key) for key in row.inputs}


def params_of(row):
    """Make the params of a row of the catalogue."""

    def param(key):
        return lambda wildcards: row.argument(key, shown_by(row, wildcards))

    return {key: param(key) for key in row.params}


FIGURE_OF_PAIR = f"{RESULTS}/figures/{{pair}}/{{name}}.{{suffix}}"
FIGURE_OF_RUN = f"{RESULTS}/figures/{{name}}.{{suffix}}"


def figures(pair):
    """List the figures of a pair that are always drawn, as PNG and PDF."""
    names = [
        name for name, row in FIGURES.items() if row.of_pair and not row.is_by_name(RUN)
    ]
    return expand(FIGURE_OF_PAIR, pair=pair, name=names, suffix=["png", "pdf"])


# Figures of a pair whose name is also that of a table over all pairs.
ALSO_TABLES = ["similarity"]

for name, row in FIGURES.items():
    drawn = f"{RESULTS}/figures/" + (f"{{pair}}/{name}" if row.of_pair else name)
    place = f"{name}/{{pair}}" if row.of_pair else name

    rule:
        name:
            f"draw_{name}" if row.of_pair else name
        input:
            **inputs_of(row),
        output:
            f"{drawn}.png",
            f"{drawn}.pdf",
        log:
            f"{LOGS}/{place}.log",
        localrule: row.local
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            **(
                {"mem_mb": 1500, "runtime": 10}
                if row.local
                else resources_for("figure")
            ),
        params:
            **params_of(row),
            **({"nets": nets_of_pair} if row.of_pair else {}),
            draw=f"convergent.figures.{row.draw}",
            code=code("figure.py", row.draw, modules=row.modules),
        message:
            f"Drawing {name} of " + ("{wildcards.pair}" if row.of_pair else RUN.run)
        script:
            "../scripts/figure.py"

    if row.of_pair:

        rule:
            name:
                name
            input:
                expand(FIGURE_OF_PAIR, pair=RUN.pair, name=name, suffix=["png", "pdf"]),
                [f"{RESULTS}/tables/{name}.csv"] if name in ALSO_TABLES else [],
            localrule: True
            message:
                f"{name} of {RUN.pair}"
