# Atlas: a page on which to explore the results.
from convergent.running.files import digest

MERGED = merged_pairs()
# Tables and stores of a pair that it shows, beside matrices.
SHOWN = {
    "mapping": rules.fit_maps.output.store,
    "matching": rules.match.output.matching,
    "clusters": rules.cluster.output.clusters,
    "significance": SIGNIFICANCE,
    "similarity": SIMILARITY,
    "null_matches": rules.compare_layers.output.matches,
}
# Contents of the page's files. As inputs they would make the atlas anew wherever their times or their
# place are others, as in another clone.
PAGE = {
    file.name: digest(file.read_bytes())
    for file in sorted(SOURCE.glob("workflow/atlas/*"))
}


rule atlas:
    input:
        **{
            name: expand(path, pair=PAIRS)
            for name, path in {**MATRICES, **SHOWN}.items()
        },
        listing=IMAGES["listing"],
        pixels=[path for name, path in IMAGES.items() if name == "pixels"],
        evaluation=expand(EVALUATIONS, net=COMPARED),
        statistics=expand(STATISTICS, net=COMPARED),
        units=expand(rules.units.output.store, net=COMPARED),
        merge=expand(MERGE, pair=MERGED),
    output:
        folder=directory(f"{RESULTS}/atlas"),
    log:
        f"{LOGS}/atlas.log",
    conda:
        "../../envs/nets.yaml"
    threads: 1
    resources:
        **resources_for("atlas"),
    params:
        page=PAGE,
        run=RUN.run,
        layers={name: NODES[name].layers for name in COMPARED}
        | {pair: RUN.layers_of_pair(pair) for pair in PAIRS},
        nets=COMPARED,
        pairs=list(PAIRS),
        measures=list(MATRICES),
        kinds=list(SHOWN),
        evaluated=COMPARED if EVALUATIONS else [],
        data={name: NODES[name].data.model_dump() for name in COMPARED},
        source=RUN.data.name,
        images=RUN.activations.images,
        seed=RUN.statistics.seed,
        penalty=RUN.mapping.penalty,
        level=RUN.nulls.level,
        merged=MERGED,
        code=code("atlas.py"),
    message:
        "Atlas of {params.run}"
    script:
        "../scripts/atlas.py"
