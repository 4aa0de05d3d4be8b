# Targets by name: each figure of the chosen pair, each net, each pair.


for name in PAIR_FIGURES:

    rule:
        name:
            name
        input:
            expand(FIGURE, pair=RUN.pair, name=name, suffix=["png", "pdf"]),
        localrule: True


taken = [rule.name for rule in workflow.rules]
for net in RUN.nets:
    if net in taken:
        raise WorkflowError(
            f"nets.{net}: {net} is a target of the workflow; name the net otherwise"
        )

    rule:
        name:
            net
        input:
            expand(rules.train.output, net=net),
            expand(rules.statistics.output, net=net),
        localrule: True


for pair in RUN.pairs:

    rule:
        name:
            pair
        input:
            expand(rules.match.output, pair=pair),
            expand(FIGURE, pair=pair, name=PAIR_FIGURES, suffix=["png", "pdf"]),
        localrule: True
