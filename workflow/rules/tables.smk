# One rule for each table of the catalogue.
from convergent.figures import catalogue

# Without labels there is no accuracy.
TABLES = {
    name: row
    for name, row in catalogue.TABLES.items()
    if RUN.data.labels or not row.needs_labels
}


def rule_of_table(name):
    """Name the rule of a table; the bare name of one that is a figure of pairs, too, makes both."""
    return f"tabulate_{name}" if name in FIGURES else name


for name, row in TABLES.items():
    pictures = [f"{RESULTS}/figures/{name}.{suffix}" for suffix in ("png", "pdf")]
    drawn = {"draw": f"convergent.figures.{row.draw}"} if row.draw else {}

    rule:
        name:
            rule_of_table(name)
        input:
            **inputs_of(row),
        output:
            **({"pictures": pictures} if row.draw else {}),
            table=f"{RESULTS}/tables/{name}.csv",
        log:
            f"{LOGS}/{name}.log",
        localrule: True
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            **params_of(row),
            **drawn,
            make=f"convergent.figures.{row.make}",
            code=code("table.py", row.make, *filter(None, [row.draw])),
        message:
            f"Table {name} of {RUN.run}"
        script:
            "../scripts/table.py"
