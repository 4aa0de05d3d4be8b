"""Catalogue of the figures and tables, one row each.

The rules (``rules/figures.smk``, ``rules/tables.smk``), the report and ``run.plot`` read it and
name none themselves. A figure is added by a row here, its function beside, and a test of that.
"""

from operator import attrgetter as get

from convergent.figures.entries import Figure, Table, each, matrix_of_layers
from convergent.measures.registry import measures_of_units

# Arguments that several take.
GROUPS, COMPARED = get("config.groups"), get("config.nets_compared")
LEVEL, PENALTY = get("config.nulls.level"), get("config.mapping.penalty")
SIDE = get("config.figures.side")

# Sections of the report.
ONE_TO_ONE = "Section 3: one to one"
MORE_MATCHING = "Section S.2: more matching"
MEAN_ACTIVATIONS = "Section S.4: mean activations"
FEW_TO_ONE = "Section 4: few to one"
MANY_TO_MANY = "Section S.3: many to many"
WHAT_FOLLOWS = "Section 6: what follows"
ALONG_TRAINING = "Section 6: along training, and on other images"

# Inputs that several figures take.
STATISTICS = {"a": "statistics/{a}.zarr", "b": "statistics/{b}.zarr"}
UNITS = {"a": "units/{a}.zarr", "b": "units/{b}.zarr"}
CORRELATION = {"correlation": "pairs/{pair}/correlation.zarr"}
MATCHING = {"matching": "pairs/{pair}/matching.csv"}
MATCHES = {**MATCHING, "null_matches": "pairs/{pair}/null_matches.csv"}
MAPPING = {"mapping": "pairs/{pair}/mapping.zarr"}
CLUSTERS = {
    "clusters": "pairs/{pair}/clusters.csv",
    "similarity": "pairs/{pair}/cluster_similarity.csv",
}

FIGURES: dict[str, Figure] = {
    "fig1": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig1",
        inputs={**STATISTICS, **CORRELATION, **MATCHING},
        params={"layer": get("layer")},
        caption="Figure 1. Correlations of {layer} for {pair}: (a, b) within each net, (c) between "
        "the two, (d) between the two with each unit opposite its partner by matching, best first. "
        "Each bright point on the diagonal of (d) is a unit that both nets learned. If one net has "
        "more units, those that are left over stand behind a gap. In the paper's conv1 much of the "
        "diagonal is nearly white.",
    ),
    "fig2": Figure(
        section=ONE_TO_ONE,
        draw="units:draw_fig2",
        inputs={**UNITS, **MATCHING},
        params={
            "measure": "correlation",
            "layers": lambda shown: shown.pictured[:3],
            "side": SIDE,
            "kinds": ["patches", "deconv"],
        },
        caption="Figure 2. The units of the first net of {pair} that are matched best (left) and "
        "worst (right) by semi-matching, above their partners in the second net: the nine image "
        "patches that excite each unit most, and below them their deconvolutions, smoothed by a "
        "pixel. The paper found "
        "the best to be near perfect matches, and the worst to have no counterpart in the other "
        "net.",
    ),
    "fig3": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig3",
        inputs=MATCHES,
        params={
            "measure": "correlation",
            "layers": lambda shown: [shown.layer],
        },
        caption="Figure 3. Correlation of each unit of the first net of {pair} with its partner in "
        "the second, {layers}, by semi-matching (light green; units may share a partner) and "
        "matching (dark green; they may not). In the paper's conv1 the correlations run from "
        "near 1 to near 0.3, and where the two methods differ the matching is often much worse. "
        "Dead units are left out, and a unit without a partner has no point. Bands are what units "
        "have by chance over the draws, sorted from best to worst: if the "
        "second net's units are mixed by a random rotation, or if it sees the images in another "
        "order (null_matches.csv).",
    ),
    "fig4": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig4",
        of_pair=False,
        inputs={
            "matchings": each("pairs/{}/matching.csv", "config.pairs_of_subjects"),
            "significance": "tables/significance.csv",
        },
        params={
            "pairs": get("config.pairs_of_subjects"),
            "layers": get("layers"),
            "groups": GROUPS,
        },
        caption="Figure 4. Mean correlation of matched units by layer over all pairs of nets, "
        "with the standard deviation over pairs. In the paper features converge most on conv1 and "
        "least on conv4. Semi-matching is averaged over the live units of the first net, the "
        "matching over as many as can have a partner (the live units of the smaller net), so it "
        "may be higher between nets of unequal widths; units without one count 0. n is the number "
        "of pairs that have a layer, where not all do. Pairs share nets, so the 95% interval "
        "leaves out one net at a time; it takes three nets. Marks are chance levels, means over "
        "the pairs: units of the second net mixed by random rotations, images in another order "
        "(both with the upper level of the draws), and nets before training, both or one of them. "
        "The ceiling is the share of units that can have a partner (tables/significance.csv).",
    ),
    "matched_information": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig3",
        inputs=MATCHES,
        params={"measure": "mutual_information", "layers": get("layers")},
        caption="Mutual information of each unit of the first net of {pair} with its partner in "
        "the second, by semi-matching and matching on mutual information, as figures 3 and S3 show "
        "it for correlation (section 3.2), with the same chance levels.",
    ),
    "excess": Figure(
        section=ONE_TO_ONE,
        draw="excess:draw_excess",
        inputs={"significance": "pairs/{pair}/significance.csv"},
        params={"layers": get("layers"), "level": LEVEL},
        caption="Mean semi-matching correlation of {pair} by layer beside what it would be by "
        "chance (above), and what it exceeds each chance level by (below), with intervals from "
        "the jackknife over blocks of images. Over rotated units: what the nets share in their "
        "units rather than in the space that these span. Over shuffled images: what they share at "
        "all. Over untrained nets: what training adds. Bands reach from the mean of the draws to "
        "their upper level; a filled mark is above chance (p at most 1 - level or, where there "
        "are no draws, the whole interval). From significance.csv.",
    ),
    "similarity": Figure(
        section=ONE_TO_ONE,
        draw="similarity:draw_similarity",
        inputs={"table": "pairs/{pair}/similarity.csv"},
        params={"layers": get("layers")},
        caption="Similarity of the layers of {pair} as wholes, by each measure that gives one "
        "number for two layers, with 95% intervals from the jackknife over blocks of images and "
        "the chance levels that the measure can have: a rotation of units changes nothing for one "
        "that does not depend on the basis. Dotted: partners or maps chosen on one half of the "
        "images and scored on the other. A cross marks layers without a value, whose reason is in "
        "the title (similarity.csv, column note).",
    ),
    "layers": Figure(
        section=ONE_TO_ONE,
        draw="layers:draw_layers",
        # All pairs of layers need another pass over the activations.
        by_name=lambda config: config.layer_pairs != "all",
        inputs={"table": matrix_of_layers},
        params={"sides": get("sides")},
        caption="Similarity of every layer of the first net of {pair} (rows) with every layer of "
        "the second (columns), by each measure but those of mutual information, which needs "
        "samples at the same positions. Frames (dots, where cells are small) mark the layer of "
        "the second net that is most like each layer of the first; along the line layers are "
        "equally deep in proportion to their nets. Colours run between the values in the title. "
        "Layers whose maps differ are compared on maps pooled to the smaller size, or by the mean "
        "of each map (`grid` in the table), unless a sample is a whole image. Values have no "
        "chance level here and do not say how much of them is learned.",
    ),
    "identification": Figure(
        section=ONE_TO_ONE,
        draw="identification:draw_identification",
        by_name=lambda config: config.layer_pairs != "all",
        inputs={"table": "pairs/{pair}/identification.csv"},
        caption="Identification of layers (Kornblith et al. 2019): for how many layers of one net "
        "of {pair} the layer of the same name is the most alike of all layers of the other, by "
        "each measure and both ways. The published shares are those of flattened images. Bars are "
        "exact 95% intervals of the share, as if layers were independent; the dashed line is "
        "chance, one over the number of layers (identification.csv).",
    ),
    "fig5": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_fig5",
        local=False,
        inputs=MAPPING,
        params={"layers": get("layers"), "penalty": PENALTY},
        caption="Figure 5. Both nets of {pair} layer by layer, and between them the sparse maps "
        "that predict each unit of the second from the units of the first: rows are the units that "
        "are predicted, columns the units that predict, and green is the size of a weight (its "
        "root, so that small ones can be seen). Each "
        "map has the decay whose product with the number of units is nearest to the configured "
        "penalty, as in the paper's own choices.",
    ),
    "fig6": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_fig6",
        local=False,
        inputs={**UNITS, **MAPPING},
        params={"layer": get("layer"), "penalty": PENALTY},
        caption="Figure 6. The sparse map of {layer} as fitted, and with its columns permuted so "
        "that the most predictive units lie on the diagonal (if one net has more units, those "
        "that are left over stand behind a gap): red weights are positive, blue ones negative. "
        "The two framed rows are the units below, with the three units of the first net that "
        "weigh most; the second is of the units predicted by others than the first, where there "
        "are any. The paper saw units of conv1 predicted by about five units of the other net.",
    ),
    "fig7": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_fig7",
        local=False,
        inputs={**UNITS, **MAPPING, "hac": "pairs/{pair}/hac.zarr"},
        params={"layer": get("layer"), "penalty": PENALTY},
        caption="Figure 7. The units of both nets clustered by the weights of the sparse map of "
        "{layer}: pixels are weights, the diagonal is blue for a unit of the first net and orange "
        "for one of the second, and each purple corner is a cluster. Below: two clusters with "
        "similar numbers of units from each net. The paper saw most of the smallest clusters join "
        "one unit of each net, and small subspaces spanned by about four units of each.",
    ),
    "sparse_loss": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_sparse_loss",
        inputs={"table": "pairs/{pair}/mapping.csv"},
        params={"layers": get("layers")},
        caption="Prediction loss, half the unexplained variance, against the number of units used "
        "for each predicted unit, for the exact maps at all decays; dots mark the paper's decays, "
        "dotted lines images that were held out, crosses the paper's SGD. Where a few units do as "
        "well as all, the code is local or slightly distributed.",
    ),
    "prune": Figure(
        section=WHAT_FOLLOWS,
        draw="pruning:draw_prune",
        by_name=True,
        inputs={"table": "pairs/{pair}/prune.csv"},
        params={"layers": get("layers")},
        caption="Accuracy of the nets of {pair} without some of their units, which are replaced by "
        "their means (thin lines: by their values for other images): those removed first that are "
        "matched worst in the other net, or best, or are least active, beside random orders (band: "
        "all draws). Orders and means come from one half of the images and are scored on the "
        "other, both ways. The paper asks how removing rare "
        "units, those of low correlation, affects performance (section 6).",
    ),
    "stitch": Figure(
        section=WHAT_FOLLOWS,
        draw="stitching:draw_stitch",
        by_name=True,
        inputs={"table": "pairs/{pair}/stitch.csv"},
        params={"layers": get("layers")},
        caption="Accuracy of a net of {pair} that goes on from a layer of the other, through maps "
        "of units that were made from the moments of one half of the images and are scored on the "
        "other. Above: by layer, for the matching, the sparse map with about as many weights as "
        "the paper's of conv1, least squares and the rotation that predicts best; and for the "
        "matching with the net before training, and with one made while the nets saw unlike "
        "images. Below: by the number of weights for each unit, along the decays of the sparse "
        "maps.",
    ),
    "figS1": Figure(
        section="Section S.1: activation values",
        draw="one_to_one:draw_figS1",
        inputs={"densities": "pairs/{pair}/joint_densities.zarr"},
        caption="Figure S1. Joint distribution of the activations of matched units of {pair}, with "
        "their correlation and mutual information: a well and a badly matched pair of each of the "
        "first two layers. Colour is the number of samples, on a logarithmic scale. In the paper "
        "the simplicity of the distributions suggests that correlation measures similarity well "
        "enough.",
    ),
    "figS2": Figure(
        section=MORE_MATCHING,
        draw="units:draw_fig2",
        inputs={**UNITS, **MATCHING},
        params={
            "measure": "correlation",
            "layers": get("pictured"),
            "side": SIDE,
            "kinds": ["patches"],
        },
        caption="Figure S2. The best and the worst semi-matched units of {pair} as in figure 2, "
        "for every layer, by their image patches.",
    ),
    "figS3": Figure(
        section=MORE_MATCHING,
        draw="one_to_one:draw_fig3",
        inputs=MATCHES,
        params={
            "measure": "correlation",
            "layers": get("other_layers"),
        },
        caption="Figure S3. Matched correlations of {pair} as in figure 3, for the other layers. "
        "The paper found the lowest in conv4.",
    ),
    "figS4": Figure(
        section=MORE_MATCHING,
        draw="units:draw_fig2",
        inputs={**UNITS, **MATCHING},
        params={
            "measure": "mutual_information",
            "layers": lambda shown: shown.pictured[:2],
            "side": SIDE,
            "kinds": ["patches", "deconv"],
        },
        caption="Figure S4. The best and the worst semi-matched units of {pair} by mutual "
        "information, in nats. The paper found mostly the same units as by correlation.",
    ),
    "figS5": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_figS5",
        local=False,
        inputs={
            **STATISTICS,
            **CORRELATION,
            "clusters": CLUSTERS["clusters"],
        },
        params={"layers": get("layers")},
        caption="Figure S5. Correlations of the units of both nets of {pair}, in the order of "
        "their spectral clusters: purple squares are clusters, green ones the leaves into which "
        "large clusters were split; dead units have a cluster of their own. The strip below tells "
        "the net of each unit. Bright blocks on the diagonal are groups of units that respond "
        "alike, whichever net they are in. The paper found such blocks in conv1 to conv5.",
    ),
    "figS6": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_figS6",
        inputs={**UNITS, **CLUSTERS},
        params={"layer": get("layer"), "kind": "filters", "number": 12},
        caption="Figure S6. Clusters of {layer} that are most alike in both nets of {pair}: "
        "filters, or patches beyond the first layer, of the first net (dashed) and of the second, "
        "with the mean correlation between them. The paper saw edges of one direction, and blobs "
        "of one colour, come together.",
    ),
    "figS7": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_figS6",
        inputs={**UNITS, **CLUSTERS},
        params={"layer": get("second_layer"), "kind": "patches", "number": 8},
        caption="Figure S7. Clusters of {layer} that are most alike in both nets of {pair}: the "
        "image patches that excite each unit of the first net (dashed) and of the second most.",
    ),
    "figS8": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_figS8",
        inputs={**UNITS, **CLUSTERS},
        params={"layer": get("second_layer")},
        caption="Figure S8. One cluster of {layer} of {pair}, split again until no part is too "
        "large: the tree, and its leaves with the units of the first net (dashed) and of the "
        "second.",
    ),
    "figS9": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_figS9",
        inputs={"similarity": CLUSTERS["similarity"]},
        params={"layers": get("layers")},
        caption="Figure S9. Mean correlation of the units of each leaf cluster of {pair}, between "
        "the nets and within them, sorted by the former; 0 where a cluster has units of one net "
        "only. Hollow marks are clusters with at most one unit of each net, which is 1 within by "
        "arithmetic; dead units have none. The paper saw both fall together and a tail of "
        "clusters that belong to one net.",
    ),
    "eigenvalues": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_eigenvalues",
        inputs={
            "table": "pairs/{pair}/eigenvalues.csv",
            "stability": "pairs/{pair}/cluster_stability.csv",
        },
        params={"clusters": get("clusters")},
        caption="Smallest eigenvalues of the graph Laplacians of {pair}, and the number k of "
        "eigenvectors and clusters that was used. As many eigenvalues are 0 as the graph has "
        "components; where they jump is a natural number of clusters (footnote 12 of the paper).",
    ),
    "figS10": Figure(
        section=MEAN_ACTIVATIONS,
        draw="one_to_one:draw_figS10",
        of_pair=False,
        inputs={"statistics": each("statistics/{}.zarr", "config.nets_compared")},
        params={"nets": COMPARED, "layers": get("layers")},
        caption="Figure S10. Mean activation of every unit, sorted, for {nets}. In the paper the "
        "spectra of different nets nearly coincide although they span one or two orders of "
        "magnitude. Dead units have no place on the logarithmic axis; their number in "
        "each net is in the title.",
    ),
    "figS11": Figure(
        section=MEAN_ACTIVATIONS,
        draw="units:draw_figS11",
        of_pair=False,
        inputs={
            "statistics": each("statistics/{}.zarr", "nets_of_layer"),
            "units": each("units/{}.zarr", "nets_of_layer"),
        },
        params={
            "nets": get("nets_of_layer"),
            "layer": get("layer"),
            "side": SIDE,
        },
        caption="Figure S11. Units of {layer} with the highest (left) and the lowest (right) mean "
        "activation in every net, with the image patches that excite them most and their "
        "deconvolutions. In the paper filters of low spatial frequency are the most active, yet "
        "the order differs from net to net.",
    ),
    "merge": Figure(
        section=WHAT_FOLLOWS,
        draw="merging:draw_merge",
        by_name=lambda config: not config.merges,
        inputs={"table": "pairs/{pair}/merge.csv"},
        caption="Nets between the two nets of {pair}: the weights are (1 - t) a + t P(b), where P "
        "brings the units of the second net into the order of the first's. Dashed: as averaged. "
        "Solid: with the mean and deviation of each unit set between those of the parents "
        "(REPAIR). Black: the ensemble, which mixes the probabilities of both nets. Above, "
        "accuracy on images that chose neither partners nor temperatures, with 95% intervals as "
        "for nets that were chosen beforehand; below, the loss as it is (left) and at the "
        "temperature of least loss on the other half of the images (right). The paper's "
        "introduction asks for nets that can be averaged (merge.csv, merge_barrier.csv).",
    ),
    "collapse": Figure(
        section=WHAT_FOLLOWS,
        draw="merging:draw_collapse",
        by_name=lambda config: not config.merges,
        inputs={"table": "pairs/{pair}/collapse.csv"},
        caption="Variance of the units of the net halfway between the two nets of {pair}, aligned "
        "by correlation, over the mean variance of the parents' units, before the activation "
        "function. Across: what the correlation of a unit with its partner predicts, which is "
        "(1 + rho) / 2 where both vary equally. On the line if the layer alone is averaged; "
        "points are units if the whole net is. What lies below the line is lost in the layers "
        "before. Above each panel, the mean that is predicted, and that of the net averaged as a "
        "whole (collapse.csv).",
    ),
    "zip": Figure(
        section=WHAT_FOLLOWS,
        draw="zipping:draw_zip",
        by_name=True,
        inputs={"table": "pairs/{pair}/zip.csv"},
        caption="One net that has the units which the nets of {pair} share once, and the others "
        "of both side by side: accuracy by size, from the concatenated net, the mean of both "
        "nets' logits (right), to the net halfway between them (left). In each layer the units "
        "that correlate most with their partner are shared first. Dashed: as it is. Solid: with "
        "the mean and deviation of each unit set to its parent's, or between its parents'. "
        "Partners come from one half of the images and are scored on the other, both ways "
        "(zip.csv). The paper asks for nets that are concatenated and rid of their overlap "
        "(section 6.5).",
    ),
    "figS12": Figure(
        section=MEAN_ACTIVATIONS,
        draw="units:draw_figS11",
        of_pair=False,
        inputs={
            "statistics": each("statistics/{}.zarr", "nets_of_second_layer"),
            "units": each("units/{}.zarr", "nets_of_second_layer"),
        },
        params={
            "nets": get("nets_of_second_layer"),
            "layer": get("second_layer"),
            "side": SIDE,
        },
        caption="Figure S12. Units of {layer} with the highest (left) and the lowest (right) mean "
        "activation in every net, as in figure S11.",
    ),
}
# Any further measure of units has its curve, too.
_shown = {row.params.get("measure") for row in FIGURES.values()}
FIGURES |= {
    f"matched_{measure.name}": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig3",
        inputs=MATCHES,
        params={"measure": measure.name, "layers": get("layers")},
        caption="Each unit of the first net of {pair} with its partner in the second, by "
        f"semi-matching and matching on {measure.label}.",
    )
    for measure in measures_of_units()
    if measure.name not in _shown
}

# Of tables over the pairs of subjects, and beside them every pair that is compared.
OVER_PAIRS = {
    "pairs": get("config.compared"),
    "averaged": get("config.pairs_of_subjects"),
    "groups": GROUPS,
    "level": LEVEL,
}

TABLES: dict[str, Table] = {
    "accuracy": Table(
        section="Section 2: nets",
        needs_labels=True,
        make="tables:tabulate_accuracy",
        inputs={
            "evaluations": each("nets/{}/evaluation.csv", "config.nodes"),
            "histories": each("nets/{}/history.csv", "seeds"),
        },
        params={
            "nets": lambda shown: list(shown.config.nodes),
            "seeds": get("seeds"),
            "roles": lambda shown: {n: node.role for n, node in shown.config.nodes.items()},
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
            "matchings": each("pairs/{}/matching.csv", "config.compared"),
            "statistics": each("statistics/{}.zarr", "config.nets_compared"),
        },
        params={
            "pairs": get("config.compared"),
            "nets": COMPARED,
            "groups": GROUPS,
        },
        caption="Share of live units whose best correlation in the other net is below 0.5, for "
        "every pair and direction, beside what the paper reports for its Net1 and Net2 on "
        "ImageNet (section 4). Units that never vary are dead, and not counted.",
    ),
    "similarity": Table(
        section=ONE_TO_ONE,
        make="over_pairs:tabulate_similarity",
        inputs={
            "tables": each("pairs/{}/similarity.csv", "config.compared"),
            "ceilings": lambda shown: "ceilings.csv" if shown.config.bounded else [],
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
            "tables": each("pairs/{}/significance.csv", "config.compared"),
            "draws": each("pairs/{}/null_draws.csv", "config.compared"),
        },
        params=OVER_PAIRS,
        caption="The paper's statistics of matched units by layer, for every pair, as the mean "
        "over pairs of subjects (pair: all) and for the most alike of these pairs (pair: best), "
        "beside what they are by chance. p compares the mean over pairs with the mean of every "
        "draw, the best pair with the best pair of every draw, and the best layer (layer: all) "
        "with the best layer of every draw.",
    ),
    "measure_agreement": Table(
        section=ONE_TO_ONE,
        make="tables:tabulate_by_layer",
        inputs={"tables": each("pairs/{}/measure_agreement.csv", "config.compared")},
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
            "mappings": each("pairs/{}/mapping.csv", "mapped_pairs"),
            "statistics": lambda shown: f"statistics/{shown.config.pair.split('-')[1]}.zarr",
        },
        params={"pairs": get("mapped_pairs"), "pair": get("config.pair")},
        caption="Prediction loss of sparse maps by layer and decay: the exact optimum, the "
        "paper's procedure (SGD, 4,500 steps there) on the same nets, and the numbers that the "
        "paper prints for its own nets on ImageNet. A dead unit counts 0.5. The paper saw little "
        "rise up to a decay of 0.001 in conv1 and conv2, and poor results from conv3 on; the "
        "columns sgd and exact tell how far SGD stops short of the optimum.",
    ),
    "cluster_stability": Table(
        section=MANY_TO_MANY,
        make="tables:tabulate_by_layer",
        inputs={"tables": each("pairs/{}/cluster_stability.csv", "config.compared")},
        params={"groups": GROUPS},
        caption="Spectral clusters of every pair and layer: units, dead and isolated ones, "
        "clusters and their leaves (the paper's number of leaves beside them), how many leaves "
        "have units of both nets, and how stable the clusters are: adjusted Rand index over seeds "
        "of k-means and over halves of the images (1: the same clusters, 0: chance).",
    ),
    "claims": Table(
        section=WHAT_FOLLOWS,
        make="claims:tabulate_claims",
        by_name=True,
        inputs={
            "significance": "tables/significance.csv",
            "agreement": "tables/measure_agreement.csv",
            "stability": "tables/cluster_stability.csv",
            "mappings": each("pairs/{}/mapping.csv", "pairs_of_kind"),
            "statistics": each("statistics/{}.zarr", "nets_of_kind"),
            "untrained": each("nets/{}/untrained.zarr", "controlled_of_kind"),
        },
        params={
            "pairs": get("pairs_of_kind"),
            "kind": get("kind"),
            "seed": get("config.nulls.seed"),
        },
        caption="The paper's claims: the number that it prints, what its method gives here, what "
        "the exact solution gives where the paper's is none, and what both would be by chance. low "
        "and high are the 95% interval over nets (with two nets, over images) of the exact number, "
        "or else of the method's.",
    ),
    "ensemble": Table(
        section=WHAT_FOLLOWS,
        make="ensembles:tabulate_ensembles",
        needs_labels=True,
        draw="ensembles:draw_ensembles",
        by_name=True,
        inputs={"ensembles": "ensembles.csv"},
        caption="Ensembles of the run's nets, whose probabilities are averaged: accuracy by size; "
        "the loss of ensembles of two that were chosen because their members are least or most "
        "alike in a layer, on other images than they are scored on; and what an ensemble gains "
        "over the mean loss of its members, against their mean similarity. The paper asks how the "
        "similarity of nets affects their ensemble, and for ensembles of greater diversity after "
        "the fact (section 6).",
    ),
    "conditions": Table(
        section=WHAT_FOLLOWS,
        make="conditions:tabulate_conditions",
        draw="conditions:draw_conditions",
        by_name=True,
        inputs={"tables": each("pairs/{}/similarity.csv", "pairs_of_groups")},
        params={
            "pairs": get("pairs_of_groups"),
            "groups": get("groups_of_pairs"),
            "same_start": get("pairs_of_same_start"),
            "level": LEVEL,
            "seed": get("config.statistics.seed"),
        },
        caption="Similarity of layers within and between groups of nets: the mean over pairs of "
        "nets, and by how much pairs of one group are more alike than pairs of two (difference). "
        "Above, colour is the mean of a cell minus the mean of all cells, which stands beside the "
        "name of the layer; framed cells are within a group. Below, intervals leave out one net "
        "at a time, which takes three nets of each of two groups; a filled mark has a p of at "
        "most 1 - level by permutation of the nets over the groups. Where groups are of two nets, "
        "p is 1/3 at least for two groups, and small only over all groups. The paper asks whether "
        "regularisation, the optimiser, the architecture and the data make nets more or less "
        "alike (section 6).",
    ),
    "dynamics": Table(
        section=ALONG_TRAINING,
        make="dynamics:tabulate",
        draw="dynamics:draw_dynamics",
        by_name=True,
        inputs={"table": "dynamics/dynamics.csv"},
        caption="How alike layers are along training: to the same layer of another net at the "
        "same epoch, and to their own final state, beside the accuracy. Bands are 95% intervals, "
        "over nets where there are three or more, else over images; dashed, the same with the "
        "second net's units rotated at random, for measures that this changes. The first epoch "
        "shows what untrained nets share. The paper asks when nets come to agree, and which "
        "features stay once they are learned (section 6, question 7).",
    ),
    "settling": Table(
        section=ALONG_TRAINING,
        make="dynamics:tabulate",
        draw="dynamics:draw_settling",
        by_name=True,
        inputs={"table": "dynamics/settling.csv"},
        caption="Share of units that have settled by an epoch: whose best partner in the other "
        "net is, from then on, the one that they have at the end (solid, with 95% intervals over "
        "images), and that are from then on most like their own final state (dotted), for units "
        "whose final correlation with the partner is at least .5 (well) and others (badly). "
        "Dashed: the units of a net exchange their partners at every epoch but the last. At the "
        "last epoch every unit has settled.",
    ),
    "probes": Table(
        section=ALONG_TRAINING,
        make="dynamics:tabulate",
        draw="probes:draw_probes",
        by_name=True,
        inputs={"table": "probes/probes.csv"},
        caption="Whether units that correspond on the validation images do so on other forms of "
        "them (data.probes): mean correlation, on the images of a probe, of units and the "
        "partners that they have on the validation images, with 95% intervals over nets where "
        "there are three or more, else over images; beside it, of the partners that they have on "
        "other images of the same probe, and of partners that the units of a net have exchanged.",
    ),
}
