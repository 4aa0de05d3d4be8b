# Figures, one row each. The rule draw_<name> draws a figure of any pair; the rule <name> is a
# target that stands for the figure of the configured pair. To add a figure, add a row here, its
# function in convergent.figures, and a test of that function.
from convergent.figures.catalogue import Figure

MATCHING = rules.match.output.matching
MAPPING = rules.fit_maps.output.store
CLUSTERS = rules.cluster.output
UNITS = rules.units.output.store
UNITS_OF_PAIR = {"a": of_pair(UNITS, 0), "b": of_pair(UNITS, 1)}
STATISTICS_OF_PAIR = {"a": of_pair(STATISTICS, 0), "b": of_pair(STATISTICS, 1)}
# Layers in which all units have pictures; if there are none, all layers.
PICTURED = [layer for layer, units in RUN.pictures.items() if units is None]
PICTURED = PICTURED or RUN.layers
LAYER, SECOND_LAYER = RUN.figures.layer, RUN.second_layer

FIGURES = {
    "fig1": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig1",
        inputs={**STATISTICS_OF_PAIR, "correlation": CORRELATION, "matching": MATCHING},
        params={"layer": LAYER},
        caption="Figure 1. Correlations of {layer} for {pair}: (a, b) within each net, (c) between "
        "the two, (d) between the two with the second net's units in the order of the matching. "
        "Each bright point on the diagonal of (d) is a unit that both nets learned. In the paper's "
        "conv1 much of the diagonal is nearly white.",
    ),
    "fig2": Figure(
        section=ONE_TO_ONE,
        draw="units:draw_fig2",
        inputs={**UNITS_OF_PAIR, "matching": MATCHING},
        params={"measure": "correlation", "layers": PICTURED[:3]},
        caption="Figure 2. The units of the first net of {pair} that are matched best (left) and "
        "worst (right) by semi-matching, above their partners in the second net: the nine image "
        "patches that excite each unit most, and below them their deconvolutions. The paper found "
        "the best to be near perfect matches, and the worst to have no counterpart in the other "
        "net.",
    ),
    "fig3": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig3",
        inputs={"matching": MATCHING},
        params={"measure": "correlation", "layers": [LAYER]},
        caption="Figure 3. Correlation of each unit of the first net of {pair} with its partner in "
        "the second, {layers}, by semi-matching (light green; units may share a partner) and "
        "matching (dark green; they may not). In the paper's conv1 the correlations run from "
        "near 1 to near 0.3, and where the two methods differ the matching is often much worse. "
        "Dead units are left out, and a unit without a partner has no point.",
    ),
    "fig4": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig4",
        of_pair=False,
        inputs={"matchings": expand(MATCHING, pair=RUN.pairs)},
        params={"pairs": RUN.pairs, "layers": RUN.layers},
        caption=f"Figure 4. Mean correlation of matched units by layer over {len(RUN.pairs)} pairs "
        "of nets, with the standard deviation over pairs. In the paper features converge most on "
        "conv1 and least on conv4. Semi-matching is averaged over live units, the matching over as "
        "many as can have a partner; units without one count 0.",
    ),
    "matched_information": Figure(
        section=ONE_TO_ONE,
        draw="one_to_one:draw_fig3",
        inputs={"matching": MATCHING},
        params={"measure": "mutual_information", "layers": RUN.layers},
        caption="Mutual information of each unit of the first net of {pair} with its partner in "
        "the second, by semi-matching and matching on mutual information, as figures 3 and S3 show "
        "it for correlation (section 3.2).",
    ),
    "similarity": Figure(
        section=ONE_TO_ONE,
        draw="similarity:draw_similarity",
        inputs={"table": SIMILARITY},
        params={"layers": RUN.layers},
        caption="Similarity of the layers of {pair} as wholes, by each measure that gives one "
        "number for two layers, with 95% intervals from the jackknife over blocks of images. "
        "Values without a chance level beside them do not say how much of it is learned.",
    ),
    "fig5": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_fig5",
        local=False,
        inputs={"mapping": MAPPING},
        params={"layers": RUN.layers, "penalty": RUN.mapping.penalty},
        caption="Figure 5. Both nets of {pair} layer by layer, and between them the sparse maps "
        "that predict each unit of the second from the units of the first: rows are the units that "
        "are predicted, columns the units that predict, and green is the size of a weight. Each "
        "map has the decay whose product with the number of units is nearest to the configured "
        "penalty, as in the paper's own choices.",
    ),
    "fig6": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_fig6",
        local=False,
        inputs={**UNITS_OF_PAIR, "mapping": MAPPING},
        params={"layer": LAYER, "penalty": RUN.mapping.penalty},
        caption="Figure 6. The sparse map of {layer} as fitted, and with its columns permuted so "
        "that the most predictive units lie on the diagonal; the two coloured rows are the units "
        "on the right, with the three units of the first net that weigh most. The paper saw units "
        "of conv1 predicted by about five units of the other net.",
    ),
    "fig7": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_fig7",
        local=False,
        inputs={**UNITS_OF_PAIR, "mapping": MAPPING, "hac": rules.hac.output.store},
        params={"layer": LAYER, "penalty": RUN.mapping.penalty},
        caption="Figure 7. The units of both nets clustered by the weights of the sparse map of "
        "{layer}: pixels are weights, the diagonal is green for a unit of the first net and red "
        "for one of the second, and each blue corner is a cluster. Right: two clusters with "
        "similar numbers of units from each net. The paper saw most of the smallest clusters join "
        "one unit of each net, and small subspaces spanned by about four units of each.",
    ),
    "sparse_loss": Figure(
        section=FEW_TO_ONE,
        draw="sparse_maps:draw_sparse_loss",
        inputs={"table": rules.mapping.output.table},
        params={"layers": RUN.layers},
        caption="Prediction loss, half the unexplained variance, against the number of units used "
        "for each predicted unit, for the exact maps at all decays; dots mark the paper's decays, "
        "dotted lines images that were held out, crosses the paper's SGD. Where a few units do as "
        "well as all, the code is local or slightly distributed.",
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
        params={"measure": "correlation", "layers": PICTURED},
        caption="Figure S2. The best and the worst semi-matched units of {pair} as in figure 2, "
        "for every layer.",
    ),
    "figS3": Figure(
        section=MORE_MATCHING,
        draw="one_to_one:draw_fig3",
        inputs={"matching": MATCHING},
        params={
            "measure": "correlation",
            # All layers except that of figure 3, unless it is the only one.
            "layers": [l for l in RUN.layers if l != LAYER] or RUN.layers,
        },
        caption="Figure S3. Matched correlations of {pair} as in figure 3, for the other layers. "
        "The paper found the lowest in conv4.",
    ),
    "figS4": Figure(
        section=MORE_MATCHING,
        draw="units:draw_fig2",
        inputs={**UNITS_OF_PAIR, "matching": MATCHING},
        params={"measure": "mutual_information", "layers": PICTURED[:2]},
        caption="Figure S4. The best and the worst semi-matched units of {pair} by mutual "
        "information. The paper found mostly the same units as by correlation.",
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
        params={"layers": RUN.layers},
        caption="Figure S5. Correlations of the units of both nets of {pair}, in the order of "
        "their spectral clusters: orange squares are clusters, blue ones the leaves into which "
        "large clusters were split. Bright blocks on the diagonal are groups of units that respond "
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
        params={"layer": LAYER, "kind": "filters", "number": 12},
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
        params={"layer": SECOND_LAYER, "kind": "patches", "number": 8},
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
        params={"layer": SECOND_LAYER},
        caption="Figure S8. One cluster of {layer} of {pair}, split again until no part is too "
        "large: the tree, and its leaves with the units of the first net (dashed) and of the "
        "second.",
    ),
    "figS9": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_figS9",
        inputs={"similarity": CLUSTERS.similarity},
        params={"layers": RUN.layers},
        caption="Figure S9. Mean correlation of the units of each leaf cluster of {pair}, between "
        "the nets and within them, sorted by the former; 0 where a cluster has units of one net "
        "only. The paper saw both fall together and a tail of clusters that belong to one net.",
    ),
    "eigenvalues": Figure(
        section=MANY_TO_MANY,
        draw="clusters:draw_eigenvalues",
        inputs={"table": CLUSTERS.eigenvalues, "stability": CLUSTERS.stability},
        params={"clusters": RUN.clusters},
        caption="Smallest eigenvalues of the graph Laplacians of {pair}, and the number k of "
        "eigenvectors and clusters that was used. As many eigenvalues are 0 as the graph has "
        "components; where they jump is a natural number of clusters (footnote 12 of the paper).",
    ),
    "figS10": Figure(
        section=MEAN_ACTIVATIONS,
        draw="one_to_one:draw_figS10",
        of_pair=False,
        inputs={"statistics": expand(STATISTICS, net=RUN.nets)},
        params={"nets": list(RUN.nets), "layers": RUN.layers},
        caption="Figure S10. Mean activation of every unit, sorted, for {nets}. In the paper the "
        "spectra of different nets nearly coincide although they span one or two orders of "
        "magnitude. Units that are silent on all images have no place on the logarithmic axis; "
        "their number is in the title.",
    ),
    "figS11": Figure(
        section=MEAN_ACTIVATIONS,
        draw="units:draw_figS11",
        of_pair=False,
        inputs={
            "statistics": expand(STATISTICS, net=RUN.nets),
            "units": expand(UNITS, net=RUN.nets),
        },
        params={"nets": list(RUN.nets), "layer": LAYER},
        caption="Figure S11. Units of {layer} with the highest (left) and the lowest (right) mean "
        "activation in every net, with the image patches that excite them most and their "
        "deconvolutions. In the paper filters of low spatial frequency are the most active, yet "
        "the order differs from net to net.",
    ),
    "figS12": Figure(
        section=MEAN_ACTIVATIONS,
        draw="units:draw_figS11",
        of_pair=False,
        inputs={
            "statistics": expand(STATISTICS, net=RUN.nets),
            "units": expand(UNITS, net=RUN.nets),
        },
        params={"nets": list(RUN.nets), "layer": SECOND_LAYER},
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
            inputs={"matching": MATCHING},
            params={"measure": measure.name, "layers": RUN.layers},
            caption="Each unit of the first net of {pair} with its partner in the second, by "
            f"semi-matching and matching on {measure.label}.",
        )
FIGURE_OF_PAIR = f"{RESULTS}/figures/{{pair}}/{{name}}.{{suffix}}"
FIGURE_OF_RUN = f"{RESULTS}/figures/{{name}}.{{suffix}}"


def figures(pair):
    """List all figures of a pair, as PNG and PDF."""
    names = [name for name, row in FIGURES.items() if row.of_pair]
    return expand(FIGURE_OF_PAIR, pair=pair, name=names, suffix=["png", "pdf"])


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
        benchmark:
            f"{TIMES}/{place}.tsv"
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
            localrule: True
            message:
                f"{name} of {RUN.pair}"
