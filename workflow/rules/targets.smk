# Targets named after each net and each pair, and which jobs come first.


targets = [rule.name for rule in workflow.rules]
for net in NODES:
    if net in targets:
        refuse(f"nets.{net}: {net} is a target of the workflow; name the net otherwise")

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
        refuse(error)


# What takes longest for a pair. Most of its figures do not wait for these.
LONG = ["compare_layers", "fit_maps", "cluster", "merge_nets"]


def sooner(each):
    """Let jobs of the pair that is drawn go before those of other pairs, and its figures first."""
    own, first = each.priority, each.name.startswith("draw_")

    def priority(wildcards):
        drawn = wildcards.get("pair") == RUN.pair
        if not drawn and wildcards.get("net") not in RUN.pair.split("-"):
            return own
        return own + (3 if first else 1 if each.name in LONG else 2)

    return priority


for each in workflow.rules:
    if Path(each.snakefile).is_relative_to(SOURCE) and each.has_wildcards():
        each.priority = sooner(each)
