# Atlas: a page on which to explore the results.
from convergent.running.files import digest

MERGED = merged_pairs()
# Contents of the page's files. As inputs they would make the atlas anew wherever their times or their
# place are others, as in another clone.
PAGE = {
    file.name: digest(file.read_bytes())
    for file in sorted(SOURCE.glob("workflow/atlas/*"))
}


rule atlas:
    input:
        **{name: expand(path, pair=PAIRS) for name, path in MATRICES.items()},
        listing=IMAGES["listing"],
        statistics=expand(STATISTICS, net=COMPARED),
        units=expand(rules.units.output.store, net=COMPARED),
        mapping=expand(rules.fit_maps.output.store, pair=PAIRS),
        matching=expand(rules.match.output.matching, pair=PAIRS),
        clusters=expand(rules.cluster.output.clusters, pair=PAIRS),
        significance=expand(SIGNIFICANCE, pair=PAIRS),
        merge=expand(MERGE, pair=MERGED),
    output:
        folder=directory(f"{RESULTS}/atlas"),
    log:
        f"{LOGS}/atlas.log",
    conda:
        "../../envs/analysis.yaml"
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
        penalty=RUN.mapping.penalty,
        level=RUN.nulls.level,
        merged=MERGED,
        code=code("atlas.py"),
    message:
        "Atlas of {params.run}"
    script:
        "../scripts/atlas.py"
