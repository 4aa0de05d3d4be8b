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
        benchmark:
            f"{TIMES}/{measure.name}/{{net}}.tsv"
        conda:
            "../../envs/nets.yaml"
        threads: threads_for("measure") if on_codes else 1
        resources:
            **resources_for("measure"),
            gpu=GPU if on_codes else 0,
        params:
            measure=measure.name,
            layers=RUN.layers,
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
        benchmark:
            f"{TIMES}/{measure.name}/{{pair}}.tsv"
        conda:
            "../../envs/nets.yaml"
        threads: threads_for("measure") if on_codes else 1
        resources:
            **resources_for("measure"),
            gpu=GPU if on_codes else 0,
        params:
            measure=measure.name,
            layers=RUN.layers,
            origin=origin("statistics"),
            device=RUN.device,
            code=code("measure.py", modules=[f"measures.{measure.name}"]),
        message:
            f"{measure.label.capitalize()} between {{wildcards.pair}}"
        script:
            "../scripts/measure.py"


# Measures that give one number for two layers.
OF_LAYERS = [measure.name for measure in measures(gives="layers", needs="moments")]
SIMILARITY = f"{RESULTS}/pairs/{{pair}}/similarity.csv" if OF_LAYERS else []


if OF_LAYERS:

    rule compare_layers:
        input:
            a=of_pair(STATISTICS, 0),
            b=of_pair(STATISTICS, 1),
            correlation=CORRELATION,
        output:
            table=SIMILARITY,
        log:
            f"{LOGS}/compare_layers/{{pair}}.log",
        benchmark:
            f"{TIMES}/compare_layers/{{pair}}.tsv"
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            **resources_for("similarity"),
        params:
            layers=RUN.layers,
            measures=OF_LAYERS,
            code=code(
                "similarity.py", modules=[f"measures.{name}" for name in OF_LAYERS]
            ),
        message:
            "Similarity of the layers of {wildcards.pair}"
        script:
            "../scripts/similarity.py"
