# Tables over all nets or pairs, one row each.
from convergent.figures.catalogue import Table

# The pairs that averages mean, and the one that figures show.
SHOWN_PAIRS = list(dict.fromkeys([*OF_SUBJECTS, RUN.pair]))
SEEDS = {name: node.seed for name, node in NODES.items() if node.kind == "trained"}
# Over the pairs of subjects, and beside them every pair that is compared.
OVER_PAIRS = {
    "pairs": PAIRS,
    "averaged": OF_SUBJECTS,
    "groups": GROUPS,
    "level": RUN.nulls.level,
}

TABLES = {
    "accuracy": Table(
        section="Section 2: nets",
        make="tables:tabulate_accuracy",
        inputs={
            "evaluations": expand(EVALUATION, net=NODES),
            "histories": expand(HISTORY, net=SEEDS),
        },
        params={
            "nets": list(NODES),
            "seeds": SEEDS,
            "roles": {name: node.role for name, node in NODES.items()},
            "groups": GROUPS,
        },
        caption="Accuracy of every net, top-1 and top-5: of nets that were trained here after "
        "their last epoch, of others as measured on the same validation images; beside it what a "
        "net that guesses would reach, and the top-1 accuracies of the paper's four nets on "
        "ImageNet.",
    ),
    "unmatched": Table(
        section=ONE_TO_ONE,
        make="tables:tabulate_unmatched",
        inputs={
            "matchings": expand(rules.match.output.matching, pair=PAIRS),
            "statistics": expand(STATISTICS, net=COMPARED),
        },
        params={"pairs": PAIRS, "nets": COMPARED, "groups": GROUPS},
        caption="Share of live units whose best correlation in the other net is below 0.5, for "
        "every pair and direction, beside what the paper reports for its Net1 and Net2 on "
        "ImageNet (section 4). Units that never vary are dead, and not counted.",
    ),
    "similarity": Table(
        section=ONE_TO_ONE,
        make="over_pairs:tabulate_similarity",
        inputs={
            "tables": expand(SIMILARITY, pair=PAIRS),
            **({"ceilings": CEILINGS} if BOUNDED else {}),
        },
        params=OVER_PAIRS,
        caption="Similarity of layers by every measure, for every pair and as the mean over pairs "
        "of subjects (pair: all), with its chance levels. low and high are the 95% interval over "
        "images, low_nets and high_nets the one over nets, which leaves out one net at a time, as "
        "pairs share nets; note says why a number is not there.",
    ),
    "significance": Table(
        section=ONE_TO_ONE,
        make="over_pairs:tabulate_significance",
        inputs={
            "tables": expand(SIGNIFICANCE, pair=PAIRS),
            "draws": expand(rules.compare_layers.output.draws, pair=PAIRS),
        },
        params=OVER_PAIRS,
        caption="The paper's statistics of matched units by layer, for every pair, as the mean over "
        "pairs of subjects (pair: all) and for the most alike of these pairs (pair: best), beside "
        "what they are by chance. p compares the mean over pairs with the mean of every draw, the "
        "best pair with the best pair of every draw, and the best layer (layer: all) with the best "
        "layer of every draw.",
    ),
    "measure_agreement": Table(
        section=ONE_TO_ONE,
        make="tables:tabulate_by_layer",
        inputs={"tables": expand(rules.agreement.output.table, pair=PAIRS)},
        params={"groups": GROUPS},
        caption="How far mutual information matches units as correlation does (section 3.2): how "
        "many of the 8, and of a tenth, best matched units stay among the best, the share of units "
        "with the same partner, and Spearman's rank correlation of the two measures over all pairs "
        "of live units. In the paper seven of the eight best matched pairs of conv1 stay.",
    ),
    "table1": Table(
        section=FEW_TO_ONE,
        make="tables:tabulate_table1",
        draw="sparse_maps:loss_table",
        inputs={
            "mappings": expand(rules.mapping.output.table, pair=SHOWN_PAIRS),
            "statistics": STATISTICS.format(net=RUN.pair.split("-")[1]),
        },
        params={"pairs": SHOWN_PAIRS, "pair": RUN.pair},
        caption="Prediction loss of sparse maps by layer and decay: the exact optimum, the paper's "
        "procedure (SGD, 4,500 steps there) on the same nets, and the numbers that the paper "
        "prints for its own nets on ImageNet. A dead unit counts 0.5. The paper saw little rise up to a decay of "
        "0.001 in conv1 and conv2, and poor results from conv3 on; the columns sgd and exact tell "
        "how far SGD stops short of the optimum.",
    ),
    "cluster_stability": Table(
        section=MANY_TO_MANY,
        make="tables:tabulate_by_layer",
        inputs={"tables": expand(rules.cluster.output.stability, pair=PAIRS)},
        params={"groups": GROUPS},
        caption="Spectral clusters of every pair and layer: units, dead and isolated ones, "
        "clusters and their leaves (the paper's number of leaves beside them), how many leaves "
        "have units of both nets, and how stable the clusters are: adjusted Rand index over seeds "
        "of k-means and over halves of the images (1: the same clusters, 0: chance).",
    ),
}

TABLES["ensemble"] = Table(
    section=WHAT_FOLLOWS,
    make="ensembles:tabulate_ensembles",
    draw="ensembles:draw_ensembles",
    by_name=True,
    inputs={"ensembles": ENSEMBLES},
    caption="Ensembles of the run's nets, whose probabilities are averaged: accuracy by size; the "
    "loss of ensembles of two that were chosen because their members are least or most alike in a "
    "layer, on other images than they are scored on; and what an ensemble gains over the mean loss "
    "of its members, against their mean similarity. The paper asks how the similarity of nets "
    "affects their ensemble, and for ensembles of greater diversity after the fact (section 6).",
)

# Pairs of subjects that have groups; without two groups, the table is refused when asked for.
OF_GROUPS = [pair for pair in OF_SUBJECTS if all(net in GROUPS for net in PAIRS[pair])]
NETS_OF_GROUPS = {
    net: GROUPS[net] for net in NODES if any(net in PAIRS[pair] for pair in OF_GROUPS)
}
TABLES["conditions"] = Table(
    section=WHAT_FOLLOWS,
    make="conditions:tabulate_conditions",
    draw="conditions:draw_conditions",
    by_name=True,
    inputs={
        "tables": (
            expand(SIMILARITY, pair=OF_GROUPS)
            if len(set(NETS_OF_GROUPS.values())) > 1
            else refused(
                "conditions: compares groups of nets, and the pairs of this run are of "
                f"{', '.join(set(NETS_OF_GROUPS.values())) or 'none'}; write a sweep, or give the "
                "nets groups, such as nets.net1.group, and compare them with pairs: all"
            )
        )
    },
    params={
        "pairs": {pair: PAIRS[pair] for pair in OF_GROUPS},
        "groups": NETS_OF_GROUPS,
        "same_start": [
            pair
            for pair in OF_GROUPS
            if len({repr(NODES[net].start) for net in PAIRS[pair]} - {"None"}) == 1
            and all(NODES[net].start for net in PAIRS[pair])
        ],
        "level": RUN.nulls.level,
        "seed": RUN.statistics.seed,
    },
    caption="Similarity of layers within and between groups of nets: the mean over pairs of nets, "
    "and by how much pairs of one group are more alike than pairs of two (difference). Above, "
    "colour is the mean of a cell minus the mean of all cells, which stands beside the name of the "
    "layer; framed cells are within a group. Below, intervals leave out one net at a time, which "
    "takes three nets of each of two groups; a filled mark has a p of at most 1 - level by "
    "permutation of the nets over the groups. Where groups are of two nets, p is 1/3 at least "
    "for two groups, and small only over all groups. The paper asks whether regularisation, the "
    "optimiser, the architecture and the data make nets more or less alike (section 6).",
)
TABLES["dynamics"] = Table(
    section=ALONG_TRAINING,
    make="dynamics:tabulate",
    draw="dynamics:draw_dynamics",
    by_name=True,
    inputs={"table": DYNAMICS},
    caption="How alike layers are along training: to the same layer of another net at the same "
    "epoch, and to their own final state, beside the accuracy. Bands are 95% intervals, over nets "
    "where there are three or more, else over images; dashed, the same with the second net's units "
    "rotated at random, for measures that this changes. The first epoch shows what untrained nets "
    "share. The paper asks when nets come to agree, and which features stay once they are learned "
    "(section 6, question 7).",
)
TABLES["settling"] = Table(
    section=ALONG_TRAINING,
    make="dynamics:tabulate",
    draw="dynamics:draw_settling",
    by_name=True,
    inputs={"table": SETTLING},
    caption="Share of units that have settled by an epoch: whose best partner in the other net is, "
    "from then on, the one that they have at the end (solid, with 95% intervals over images), and "
    "that are from then on most like their own final state (dotted), for units whose final "
    "correlation with the partner is at least .5 (well) and others (badly). Dashed: the units of a "
    "net exchange their partners at every epoch but the last. At the last epoch every unit has "
    "settled.",
)

TABLES["probes"] = Table(
    section=ALONG_TRAINING,
    make="dynamics:tabulate",
    draw="probes:draw_probes",
    by_name=True,
    inputs={"table": PROBE_TABLE},
    caption="Whether units that correspond on the validation images do so on other forms of them "
    "(data.probes): mean correlation, on the images of a probe, of units and the partners that they "
    "have on the validation images, with 95% intervals over nets where there are three or more, "
    "else over images; beside it, of the partners that they have on other images of the same probe, "
    "and of partners that the units of a net have exchanged.",
)

if not RUN.data.labels:
    del TABLES["accuracy"], TABLES["ensemble"]


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
            **row.inputs,
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
            **row.params,
            **drawn,
            make=f"convergent.figures.{row.make}",
            code=code("table.py", row.make, *filter(None, [row.draw])),
        message:
            f"Table {name} of {RUN.run}"
        script:
            "../scripts/table.py"
