# Atlas: a page on which to explore the results.


rule atlas:
    input:
        **{name: expand(path, pair=RUN.pairs) for name, path in MATRICES.items()},
        page=sorted(Path(workflow.basedir).glob("workflow/atlas/*")),
        listing=IMAGES["listing"],
        statistics=expand(STATISTICS, net=RUN.nets),
        units=expand(rules.units.output.store, net=RUN.nets),
        mapping=expand(rules.fit_maps.output.store, pair=RUN.pairs),
        matching=expand(rules.match.output.matching, pair=RUN.pairs),
        clusters=expand(rules.cluster.output.clusters, pair=RUN.pairs),
    output:
        folder=directory(f"{RESULTS}/atlas"),
    log:
        f"{LOGS}/atlas.log",
    benchmark:
        f"{TIMES}/atlas.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        **resources_for("atlas"),
    params:
        run=RUN.run,
        layers=RUN.layers,
        nets=list(RUN.nets),
        pairs=RUN.pairs,
        measures=list(MATRICES),
        penalty=RUN.mapping.penalty,
        code=code("atlas.py"),
    message:
        "Atlas of {params.run}"
    script:
        "../scripts/atlas.py"
