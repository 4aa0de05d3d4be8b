# Targets named after each net and each pair.


targets = [rule.name for rule in workflow.rules]
for net in NODES:
    if net in targets:
        raise WorkflowError(
            f"nets.{net}: {net} is a target of the workflow; name the net otherwise"
        )

    rule:
        name:
            net
        input:
            expand([WEIGHTS, *EVALUATIONS], net=net),
            expand(STATISTICS, net=net),
            expand(rules.units.output, net=net),
        localrule: True
        message:
            f"Everything of {net}"


for pair in PAIRS:

    rule:
        name:
            pair
        input:
            expand(rules.match.output, pair=pair),
            expand([SIMILARITY, SIGNIFICANCE], pair=pair),
            expand(rules.mapping.output, pair=pair),
            expand(rules.hac.output, pair=pair),
            expand(rules.cluster.output, pair=pair),
            figures(pair),
        localrule: True
        message:
            f"Everything of {pair}"


# Snakemake would only say that there is no rule. A Snakefile that takes up this one may have targets
# of its own, which are not known yet.
if ASKED and Path(workflow.main_snakefile) == SOURCE / "Snakefile":
    try:
        check_targets(
            ASKED.targets,
            [rule.name for rule in workflow.rules if not rule.has_wildcards()],
            list(NODES),
            RESULTS,
        )
    except ConvergentError as error:
        raise WorkflowError(str(error)) from None
