# Measures of similarity in the registry. Each measure of units has a store per net and per pair;
# correlations are computed together with the moments instead.
from convergent.measures.registry import measures, measures_of_units

# Stores of a pair, by measure.
MATRICES = {
    measure.name: f"{RESULTS}/pairs/{{pair}}/{measure.name}.zarr"
    for measure in measures_of_units()
}
MATRICES_WITHIN = {
    name: f"{RESULTS}/nets/{{net}}/{name}.zarr"
    for name, path in MATRICES.items()
    if path != CORRELATION
}

for measure in measures_of_units():
    if measure.name not in MATRICES_WITHIN:
        continue
    on_codes = measure.needs == "codes"
    between = {} if on_codes else {"correlation": CORRELATION}

    rule:
        name:
            f"{measure.name}_within"
        input:
            a=STATISTICS,
        output:
            store=directory(MATRICES_WITHIN[measure.name]),
        log:
            f"{LOGS}/{measure.name}/{{net}}.log",
        conda:
            "../../envs/nets.yaml"
        threads: threads_for("measure") if on_codes else 1
        resources:
            **resources_for("measure"),
            gpu=GPU if on_codes else 0,
        params:
            measure=measure.name,
            layers=layers_of,
            origin=origin("statistics"),
            device=RUN.device,
            code=code("measure.py", modules=[f"measures.{measure.name}"]),
        message:
            f"{measure.label.capitalize()} within {{wildcards.net}}"
        script:
            "../scripts/measure.py"

    rule:
        name:
            measure.name
        input:
            **between,
            a=of_pair(STATISTICS, 0),
            b=of_pair(STATISTICS, 1),
        output:
            store=directory(MATRICES[measure.name]),
        log:
            f"{LOGS}/{measure.name}/{{pair}}.log",
        conda:
            "../../envs/nets.yaml"
        threads: threads_for("measure") if on_codes else 1
        resources:
            **resources_for("measure"),
            gpu=GPU if on_codes else 0,
        params:
            measure=measure.name,
            other_views=other_views,
            layers=layers_of,
            origin=origin("statistics"),
            device=RUN.device,
            code=code("measure.py", modules=[f"measures.{measure.name}"]),
        message:
            f"{measure.label.capitalize()} between {{wildcards.pair}}"
        script:
            "../scripts/measure.py"


# Measures that give one number for two layers, and all modules of measures.
OF_LAYERS = [measure.name for measure in measures(gives="layers")]
MEASURE_MODULES = [
    f"measures.{measure.module or measure.name}" for measure in measures()
]
SIMILARITY = f"{RESULTS}/pairs/{{pair}}/similarity.csv"
SIGNIFICANCE = f"{RESULTS}/pairs/{{pair}}/significance.csv"
# Every layer of one net with every layer of the other.
MATRIX_OF_LAYERS = f"{RESULTS}/pairs/{{pair}}/layer_similarity.csv"
if RUN.layer_pairs == "all":
    MATRIX_OF_LAYERS = SIMILARITY
# Tables from activation stores, each with the pairs of layers that it holds.
FROM_STORES = {"compare_all_layers": (MATRIX_OF_LAYERS, "all")}
if RUN.layer_pairs not in ("same", "all"):
    FROM_STORES["compare_listed_layers"] = (SIMILARITY, RUN.layer_pairs)
# A null that costs a pass over the stores needs them.
NULLS = RUN.nulls.model_dump(exclude={"maps", "untrained"})
NULLS["binning"] = RUN.statistics.binning
if not RUN.activations.store:
    NULLS["images"] = 0


rule compare_layers:
    input:
        statistics_a=of_pair(STATISTICS, 0),
        statistics_b=of_pair(STATISTICS, 1),
        correlation=CORRELATION,
        activations_a=where_stored(ACTIVATIONS, 0),
        activations_b=where_stored(ACTIVATIONS, 1),
        untrained_a=where_controlled(UNTRAINED, 0),
        untrained_b=where_controlled(UNTRAINED, 1),
        controls=where_controlled(CONTROLS),
        untrained_activations_a=where_controlled(UNTRAINED_ACTIVATIONS, 0, stored=True),
        untrained_activations_b=where_controlled(UNTRAINED_ACTIVATIONS, 1, stored=True),
    output:
        # Other pairs of layers than those of one name are compared below.
        **({"table": SIMILARITY} if RUN.layer_pairs == "same" else {}),
        significance=SIGNIFICANCE,
        draws=f"{RESULTS}/pairs/{{pair}}/null_draws.csv",
        matches=f"{RESULTS}/pairs/{{pair}}/null_matches.csv",
    log:
        f"{LOGS}/compare_layers/{{pair}}.log",
    conda:
        "../../envs/nets.yaml"
    threads: threads_for("compare_layers")
    resources:
        **resources_for("compare_layers"),
    params:
        layers=layers_of,
        measures=OF_LAYERS,
        nulls=NULLS,
        code=code("similarity.py", modules=MEASURE_MODULES),
    message:
        "Similarity of the layers of {wildcards.pair}, and its chance level"
    script:
        "../scripts/similarity.py"


if RUN.activations.store:
    for name, (table, asked) in FROM_STORES.items():

        rule:
            name:
                name
            input:
                activations_a=of_pair(ACTIVATIONS, 0),
                activations_b=of_pair(ACTIVATIONS, 1),
                statistics_a=of_pair(STATISTICS, 0),
                statistics_b=of_pair(STATISTICS, 1),
            output:
                table=table,
            log:
                f"{LOGS}/{name}/{{pair}}.log",
            conda:
                "../../envs/nets.yaml"
            threads: threads_for("correlation")
            resources:
                **resources_for("layer_pairs"),
                dask=RUN.dask.model_dump_json(),
            params:
                layers=layers_of_both,
                pairs=pairs_of_layers(asked),
                measures=OF_LAYERS,
                # The matrix that is asked for by name has no chance levels.
                nulls=NULLS if table == SIMILARITY else {},
                unequal=RUN.unequal_maps,
                blocks=RUN.statistics.blocks,
                code=code("layer_pairs.py", modules=MEASURE_MODULES),
            message:
                "Similarity of pairs of layers of {wildcards.pair}"
            script:
                "../scripts/layer_pairs.py"

else:

    MATRIX_OF_LAYERS = refused(
        "layers: all pairs of layers are compared from activation stores, but "
        "activations.store is false; set it to true"
    )


IDENTIFICATION = f"{RESULTS}/pairs/{{pair}}/identification.csv"


rule identify:
    input:
        table=MATRIX_OF_LAYERS,
    output:
        table=IDENTIFICATION,
    log:
        f"{LOGS}/identify/{{pair}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        sides=layers_of_both,
        nets=nets_of_pair,
        code=code("identify.py", modules=MEASURE_MODULES),
    message:
        "Identification of the layers of {wildcards.pair}"
    script:
        "../scripts/identify.py"


# What bounds the similarity of all subjects. Two nets bound nothing.
CEILINGS = f"{RESULTS}/ceilings.csv"

if RUN.bounded:

    rule ceilings:
        input:
            activations=expand(ACTIVATIONS, net=SUBJECTS),
        output:
            table=CEILINGS,
        log:
            f"{LOGS}/ceilings.log",
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=2000 + 12 * len(SUBJECTS),
            runtime=30,
        params:
            nets=SUBJECTS,
            code=code("ceilings.py", modules=MEASURE_MODULES),
        message:
            f"Ceilings of the similarity of {len(SUBJECTS)} nets"
        script:
            "../scripts/ceilings.py"
