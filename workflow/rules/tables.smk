# Tables over all nets or pairs, one row each.
from convergent.figures.catalogue import Table

TABLES = {
    "accuracy": Table(
        section="Section 2: nets",
        make="tables:tabulate_accuracy",
        inputs={"histories": expand(rules.train.output.history, net=RUN.nets)},
        params={"seeds": {name: net.seed for name, net in RUN.nets.items()}},
        caption="Accuracy of every net after its last epoch, top-1 and top-5, beside the top-1 "
        "accuracies of the paper's four nets on ImageNet.",
    ),
    "unmatched": Table(
        section=ONE_TO_ONE,
        make="tables:tabulate_unmatched",
        inputs={
            "matchings": expand(rules.match.output.matching, pair=RUN.pairs),
            "statistics": expand(STATISTICS, net=RUN.nets),
        },
        params={"pairs": PAIRS, "nets": list(RUN.nets)},
        caption="Share of live units whose best correlation in the other net is below 0.5, for "
        "every pair and direction, beside what the paper reports for its Net1 and Net2 "
        "(section 4). Units that never vary are dead, and not counted.",
    ),
    "measure_agreement": Table(
        section=ONE_TO_ONE,
        make="tables:tabulate_by_layer",
        inputs={"tables": expand(rules.agreement.output.table, pair=RUN.pairs)},
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
            "mappings": expand(rules.mapping.output.table, pair=RUN.pairs),
            "statistics": STATISTICS.format(net=PAIRS[RUN.pair][1]),
        },
        params={"pairs": RUN.pairs, "pair": RUN.pair},
        caption="Prediction loss of sparse maps by layer and decay: the exact optimum, the paper's "
        "procedure (SGD, 4,500 steps there) on the same nets, and the numbers that the paper "
        "prints for its own. A dead unit counts 0.5. The paper saw little rise up to a decay of "
        "0.001 in conv1 and conv2, and poor results from conv3 on; the columns sgd and exact tell "
        "how far SGD stops short of the optimum.",
    ),
    "cluster_stability": Table(
        section=MANY_TO_MANY,
        make="tables:tabulate_by_layer",
        inputs={"tables": expand(rules.cluster.output.stability, pair=RUN.pairs)},
        caption="Spectral clusters of every pair and layer: units, dead and isolated ones, "
        "clusters and their leaves (the paper's number of leaves beside them), how many leaves "
        "have units of both nets, and how stable the clusters are: adjusted Rand index over seeds "
        "of k-means and over halves of the images (1: the same clusters, 0: chance).",
    ),
}

for name, row in TABLES.items():
    pictures = [f"{RESULTS}/figures/{name}.{suffix}" for suffix in ("png", "pdf")]
    drawn = {"draw": f"convergent.figures.{row.draw}"} if row.draw else {}

    rule:
        name:
            name
        input:
            **row.inputs,
        output:
            **({"pictures": pictures} if row.draw else {}),
            table=f"{RESULTS}/tables/{name}.csv",
        log:
            f"{LOGS}/{name}.log",
        benchmark:
            f"{TIMES}/{name}.tsv"
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
