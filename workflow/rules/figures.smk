# Figures, one row each. The rule draw_<name> draws a figure of any pair; the rule <name> is a
# target that stands for the figure of the configured pair. To add a figure, add a row here, its
# function in convergent.figures, and a test of that function.
from convergent.figures.catalogue import Figure

MATCHING = rules.match.output.matching
MAPPING = rules.fit_maps.output.store
CLUSTERS = rules.cluster.output
UNITS = rules.units.output.store
UNITS_OF_PAIR = {"a": of_pair(UNITS, 0), "b": of_pair(UNITS, 1)}
# Written beside SIGNIFICANCE.
NULL_MATCHES = f"{RESULTS}/pairs/{{pair}}/null_matches.csv"
STATISTICS_OF_PAIR = {"a": of_pair(STATISTICS, 0), "b": of_pair(STATISTICS, 1)}


def layer_of(wildcards):
    """Return the layer that figures of one layer show for a pair."""
    return RUN.layer_of(*nets_of_pair(wildcards))


def second_layer_of(wildcards):
    """Return the layer of figS7 and figS8 for a pair."""
    return RUN.second_layer_of(*nets_of_pair(wildcards))


def other_layers_of(wildcards):
    """Return all layers of a pair except that of figure 3, unless it is the only one."""
    layers = layers_of(wildcards)
    return [layer for layer in layers if layer != layer_of(wildcards)] or layers


def pictured(number=None):
    """Make a param: the first layers of a pair in which all units have pictures.

    If there are none, its first layers.
    """

    def layers(wildcards):
        every = layers_of(wildcards)
        shown = [layer for layer in every if RUN.pictures.get(layer, ()) is None]
        return (shown or every)[:number]

    return layers


def having(layer):
    """List the nets that are compared and have a layer."""
    return [name for name in COMPARED if layer in NODES[name].places]


# All layers of the nets that are compared, and those that figures of one layer show.
LAYERS = [name for name in RUN.layer_names if having(name)]
LAYER = RUN.layer_of(*RUN.pair.split("-"))
SECOND_LAYER = RUN.second_layer_of(*RUN.pair.split("-"))

FIGURES = {
    "fig1": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig1",
        inputs={**STATISTICS_OF_PAIR, "correlation": CORRELATION, "matching": MATCHING},
        params={"layer": layer_of},
        caption="Figure 1. Correlations of {layer} for {pair}: (a, b) within each net, (c) between "
        "the two, (d) between the two with each unit opposite its partner by matching, best first. "
        "Each bright point on the diagonal of (d) is a unit that both nets learned. If one net has "
        "more units, those that are left over stand behind a gap. In the paper's conv1 much of the "
        "diagonal is nearly white.",
    ),
    "fig2": Figure(
        section=ONE_TO_ONE,
        draw="units:draw_fig2",
        inputs={**UNITS_OF_PAIR, "matching": MATCHING},
        params={
            "measure": "correlation",
            "layers": pictured(3),
            "side": RUN.figures.side,
            "kinds": ["patches", "deconv"],
        },
        caption="Figure 2. The units of the first net of {pair} that are matched best (left) and "
        "worst (right) by semi-matching, above their partners in the second net: the nine image "
        "patches that excite each unit most, and below them their deconvolutions. The paper found "
        "the best to be near perfect matches, and the worst to have no counterpart in the other "
        "net.",
    ),
    "fig3": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig3",
        inputs={"matching": MATCHING, "null_matches": NULL_MATCHES},
        params={
            "measure": "correlation",
            "layers": lambda wildcards: [layer_of(wildcards)],
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
            "matchings": expand(MATCHING, pair=OF_SUBJECTS),
            "significance": f"{RESULTS}/tables/significance.csv",
        },
        params={"pairs": OF_SUBJECTS, "layers": LAYERS, "groups": GROUPS},
        caption=f"Figure 4. Mean correlation of matched units by layer over {len(OF_SUBJECTS)} pairs "
        "of nets, with the standard deviation over pairs. In the paper features converge most on "
        "conv1 and least on conv4. Semi-matching is averaged over the live units of the first net, "
        "the matching over as many as can have a partner (the live units of the smaller net), so "
        "it may be higher between nets of unequal widths; units without one count 0. n is the "
        "number of pairs that have a layer, where not all do. Pairs share nets, so the 95% interval "
        "leaves out one net at a time; it takes three nets. Marks are chance levels, means over "
        "the pairs: units of the second net mixed by random rotations, images in another order "
        "(both with the upper level of the draws), and nets before training, both or one of them. "
        "The ceiling is the share of units that can have a partner (tables/significance.csv).",
    ),
    "matched_information": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig3",
        inputs={"matching": MATCHING, "null_matches": NULL_MATCHES},
        params={"measure": "mutual_information", "layers": layers_of},
        caption="Mutual information of each unit of the first net of {pair} with its partner in "
        "the second, by semi-matching and matching on mutual information, as figures 3 and S3 show "
        "it for correlation (section 3.2), with the same chance levels.",
    ),
    "excess": Figure(
        section=ONE_TO_ONE,
        draw="excess:draw_excess",
        inputs={"significance": SIGNIFICANCE},
        params={"layers": layers_of, "level": RUN.nulls.level},
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
        inputs={"table": SIMILARITY},
        params={"layers": layers_of},
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
        by_name=RUN.layer_pairs != "all",
        inputs={"table": MATRIX_OF_LAYERS},
        params={"sides": layers_of_both},
        caption="Similarity of every layer of the first net of {pair} (rows) with every layer of the "
        "second (columns), by each measure but those of mutual information, which needs samples at "
        "the same positions. Frames (dots, where cells are small) mark the layer of the second net that is most like each layer of the "
        "first; along the line layers are equally deep in proportion to their nets. Colours run "
        "between the values in the title. Layers whose maps differ are compared on maps pooled to "
        "the smaller size, or by the mean of each map (`grid` in the table), unless a sample is a "
        "whole image. Values have no chance "
        "level here and do not say how much of them is learned.",
    ),
    "identification": Figure(
        section=ONE_TO_ONE,
        draw="identification:draw_identification",
        by_name=RUN.layer_pairs != "all",
        inputs={"table": IDENTIFICATION},
        caption="Identification of layers (Kornblith et al. 2019): for how many layers of one net "
        "of {pair} the layer of the same name is the most alike of all layers of the other, by "
        "each measure and both ways. The published shares are those of flattened images. Bars are exact 95% intervals of the share, as if layers were "
        "independent; the dashed line is chance, one over the number of layers "
        "(identification.csv).",
    ),
    "fig5": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_fig5",
        local=False,
        inputs={"mapping": MAPPING},
        params={"layers": layers_of, "penalty": RUN.mapping.penalty},
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
        inputs={**UNITS_OF_PAIR, "mapping": MAPPING},
        params={"layer": layer_of, "penalty": RUN.mapping.penalty},
        caption="Figure 6. The sparse map of {layer} as fitted, and with its columns permuted so "
        "that the most predictive units lie on the diagonal (if one net has more units, those that "
        "are left over stand behind a gap): red weights are positive, blue ones negative. The two "
        "framed rows are the units below, with the three units of the first net that weigh most; "
        "the second is of the units predicted by others than the first, where there are any. The paper saw units of conv1 predicted "
        "by about five units of the other net.",
    ),
    "fig7": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_fig7",
        local=False,
        inputs={**UNITS_OF_PAIR, "mapping": MAPPING, "hac": rules.hac.output.store},
        params={"layer": layer_of, "penalty": RUN.mapping.penalty},
        caption="Figure 7. The units of both nets clustered by the weights of the sparse map of "
        "{layer}: pixels are weights, the diagonal is blue for a unit of the first net and orange "
        "for one of the second, and each purple corner is a cluster. Below: two clusters with "
        "similar numbers of units from each net. The paper saw most of the smallest clusters join "
        "one unit of each net, and small subspaces spanned by about four units of each.",
    ),
    "sparse_loss": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_sparse_loss",
        inputs={"table": rules.mapping.output.table},
        params={"layers": layers_of},
        caption="Prediction loss, half the unexplained variance, against the number of units used "
        "for each predicted unit, for the exact maps at all decays; dots mark the paper's decays, "
        "dotted lines images that were held out, crosses the paper's SGD. Where a few units do as "
        "well as all, the code is local or slightly distributed.",
    ),
    "prune": Figure(
        section=WHAT_FOLLOWS,
        draw="pruning:draw_prune",
        by_name=True,
        inputs={"table": PRUNE},
        params={"layers": layers_of},
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
        inputs={"table": STITCH},
        params={"layers": layers_of},
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
        inputs={"densities": rules.joint_densities.output.store},
        caption="Figure S1. Joint distribution of the activations of matched units of {pair}, with "
        "their correlation and mutual information: a well and a badly matched pair of each of the "
        "first two layers. Colour is the number of samples, on a logarithmic scale. In the paper "
        "the simplicity of the distributions suggests that correlation measures similarity well "
        "enough.",
    ),
    "figS2": Figure(
        section=MORE_MATCHING,
        draw="units:draw_fig2",
        inputs={**UNITS_OF_PAIR, "matching": MATCHING},
        params={
            "measure": "correlation",
            "layers": pictured(),
            "side": RUN.figures.side,
            "kinds": ["patches"],
        },
        caption="Figure S2. The best and the worst semi-matched units of {pair} as in figure 2, "
        "for every layer, by their image patches.",
    ),
    "figS3": Figure(
        section=MORE_MATCHING,
        draw="one_to_one:draw_fig3",
        inputs={"matching": MATCHING, "null_matches": NULL_MATCHES},
        params={
            "measure": "correlation",
            "layers": other_layers_of,
        },
        caption="Figure S3. Matched correlations of {pair} as in figure 3, for the other layers. "
        "The paper found the lowest in conv4.",
    ),
    "figS4": Figure(
        section=MORE_MATCHING,
        draw="units:draw_fig2",
        inputs={**UNITS_OF_PAIR, "matching": MATCHING},
        params={
            "measure": "mutual_information",
            "layers": pictured(2),
            "side": RUN.figures.side,
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
            **STATISTICS_OF_PAIR,
            "correlation": CORRELATION,
            "clusters": CLUSTERS.clusters,
        },
        params={"layers": layers_of},
        caption="Figure S5. Correlations of the units of both nets of {pair}, in the order of "
        "their spectral clusters: orange squares are clusters, blue ones the leaves into which "
        "large clusters were split; dead units have a cluster of their own. The strip below tells "
        "the net of each unit. Bright blocks on the diagonal are groups of units that respond "
        "alike, whichever net they are in. The paper found such blocks in conv1 to conv5.",
    ),
    "figS6": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_figS6",
        inputs={
            **UNITS_OF_PAIR,
            "clusters": CLUSTERS.clusters,
            "similarity": CLUSTERS.similarity,
        },
        params={"layer": layer_of, "kind": "filters", "number": 12},
        caption="Figure S6. Clusters of {layer} that are most alike in both nets of {pair}: "
        "filters, or patches beyond the first layer, of the first net (dashed) and of the second, "
        "with the mean correlation between them. The paper saw edges of one direction, and blobs "
        "of one colour, come together.",
    ),
    "figS7": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_figS6",
        inputs={
            **UNITS_OF_PAIR,
            "clusters": CLUSTERS.clusters,
            "similarity": CLUSTERS.similarity,
        },
        params={"layer": second_layer_of, "kind": "patches", "number": 8},
        caption="Figure S7. Clusters of {layer} that are most alike in both nets of {pair}: the "
        "image patches that excite each unit of the first net (dashed) and of the second most.",
    ),
    "figS8": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_figS8",
        inputs={
            **UNITS_OF_PAIR,
            "clusters": CLUSTERS.clusters,
            "similarity": CLUSTERS.similarity,
        },
        params={"layer": second_layer_of},
        caption="Figure S8. One cluster of {layer} of {pair}, split again until no part is too "
        "large: the tree, and its leaves with the units of the first net (dashed) and of the "
        "second.",
    ),
    "figS9": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_figS9",
        inputs={"similarity": CLUSTERS.similarity},
        params={"layers": layers_of},
        caption="Figure S9. Mean correlation of the units of each leaf cluster of {pair}, between "
        "the nets and within them, sorted by the former; 0 where a cluster has units of one net "
        "only. Hollow marks are clusters with at most one unit of each net, which is 1 within by "
        "arithmetic; dead units have none. The paper saw both fall together and a tail of clusters that belong to one net.",
    ),
    "eigenvalues": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_eigenvalues",
        inputs={"table": CLUSTERS.eigenvalues, "stability": CLUSTERS.stability},
        params={"clusters": clusters_of},
        caption="Smallest eigenvalues of the graph Laplacians of {pair}, and the number k of "
        "eigenvectors and clusters that was used. As many eigenvalues are 0 as the graph has "
        "components; where they jump is a natural number of clusters (footnote 12 of the paper).",
    ),
    "figS10": Figure(
        section=MEAN_ACTIVATIONS,
        draw="one_to_one:draw_figS10",
        of_pair=False,
        inputs={"statistics": expand(STATISTICS, net=COMPARED)},
        params={"nets": COMPARED, "layers": LAYERS},
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
            "statistics": expand(STATISTICS, net=having(LAYER)),
            "units": expand(UNITS, net=having(LAYER)),
        },
        params={"nets": having(LAYER), "layer": LAYER, "side": RUN.figures.side},
        caption="Figure S11. Units of {layer} with the highest (left) and the lowest (right) mean "
        "activation in every net, with the image patches that excite them most and their "
        "deconvolutions. In the paper filters of low spatial frequency are the most active, yet "
        "the order differs from net to net.",
    ),
    "merge": Figure(
        section=WHAT_FOLLOWS,
        draw="merging:draw_merge",
        by_name=not RUN.merges,
        inputs={"table": rules.merge_nets.output.table},
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
        by_name=not RUN.merges,
        inputs={"table": rules.merge_nets.output.collapse},
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
        inputs={"table": rules.zip_nets.output.table},
        caption="One net that has the units which the nets of {pair} share once, and the others of "
        "both side by side: accuracy by size, from the concatenated net, the mean of both nets' "
        "logits (right), to the net halfway between them (left). In each layer the units that "
        "correlate most with their partner are shared first. Dashed: as it is. Solid: with the mean and "
        "deviation of each unit set to its parent's, or between its parents'. Partners come from one "
        "half of the images and are scored on the other, both ways (zip.csv). The paper asks for "
        "nets that are concatenated and rid of their overlap (section 6.5).",
    ),
    "figS12": Figure(
        section=MEAN_ACTIVATIONS,
        draw="units:draw_figS11",
        of_pair=False,
        inputs={
            "statistics": expand(STATISTICS, net=having(SECOND_LAYER)),
            "units": expand(UNITS, net=having(SECOND_LAYER)),
        },
        params={
            "nets": having(SECOND_LAYER),
            "layer": SECOND_LAYER,
            "side": RUN.figures.side,
        },
        caption="Figure S12. Units of {layer} with the highest (left) and the lowest (right) mean "
        "activation in every net, as in figure S11.",
    ),
}
# Any further measure of units has its curve, too.
shown = {row.params.get("measure") for row in FIGURES.values()}
for measure in measures_of_units():
    if measure.name not in shown:
        FIGURES[f"matched_{measure.name}"] = Figure(
            section=ONE_TO_ONE,
            draw="one_to_one:draw_fig3",
            inputs={"matching": MATCHING, "null_matches": NULL_MATCHES},
            params={"measure": measure.name, "layers": layers_of},
            caption="Each unit of the first net of {pair} with its partner in the second, by "
            f"semi-matching and matching on {measure.label}.",
        )

FIGURE_OF_PAIR = f"{RESULTS}/figures/{{pair}}/{{name}}.{{suffix}}"
FIGURE_OF_RUN = f"{RESULTS}/figures/{{name}}.{{suffix}}"


def figures(pair):
    """List the figures of a pair that are always drawn, as PNG and PDF."""
    names = [name for name, row in FIGURES.items() if row.of_pair and not row.by_name]
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
            **row.inputs,
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
            **row.params,
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
