# Convergent learning: nets -> activations -> statistics -> pairs -> figures, tables.
#
#   snakemake --cores all                                      the whole run of config.yaml
#   snakemake --cores all fig3                                 one figure
#   snakemake --cores all net2-net4                            everything about one pair
#   snakemake --cores all --configfile presets/imagenet.yaml   another run
import atexit
import gc

from snakemake.utils import min_version

min_version("9.20")

# What imports and rules leave in memory stays. To look for garbage among it takes a tenth of the start.
gc.set_threshold(100_000)
atexit.register(gc.freeze)


# That of the working directory or, if it has none, this repository's.
CONFIG = Path("config.yaml")
if not CONFIG.exists():
    CONFIG = Path(workflow.current_basedir) / CONFIG


configfile: CONFIG


include: "workflow/rules/common.smk"
include: "workflow/rules/train.smk"


if RUN.activations.store:

    include: "workflow/rules/activations.smk"

else:

    include: "workflow/rules/observation.smk"


include: "workflow/rules/measures.smk"
include: "workflow/rules/matching.smk"
include: "workflow/rules/mapping.smk"
include: "workflow/rules/clustering.smk"
include: "workflow/rules/consequences.smk"
include: "workflow/rules/pruning.smk"
include: "workflow/rules/stitching.smk"
include: "workflow/rules/ensembles.smk"
include: "workflow/rules/dynamics.smk"
include: "workflow/rules/probes.smk"
include: "workflow/rules/units.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/atlas.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        expand(rules.match.output, pair=PAIRS),
        expand(rules.mapping.output, pair=PAIRS),
        expand(rules.hac.output, pair=PAIRS),
        expand(rules.cluster.output, pair=PAIRS),
        expand(MATRICES_WITHIN.values(), net=COMPARED),
        expand(MATRICES.values(), pair=PAIRS),
        expand([SIMILARITY, SIGNIFICANCE], pair=PAIRS),
        expand(rules.units.output, net=COMPARED),
        expand([WEIGHTS, *EVALUATIONS], net=NODES),
        figures(RUN.pair),
        # Figures of the run, tables, and pictures of tables.
        [getattr(rules, name).output for name in FIGURES if not FIGURES[name].of_pair],
        [
            getattr(rules, rule_of_table(name)).output
            for name in TABLES
            if not TABLES[name].by_name
        ],
        rules.atlas.output,
    message:
        f"Everything of {RUN.run}"


include: "workflow/rules/publishing.smk"
include: "workflow/rules/targets.smk"


onstart:
    # Jobs that run on this machine start as forks of a process that has their libraries loaded.
    start_forks()


onsuccess:
    from convergent.figures.report import summary

    print(summary(RESULTS, RUN.pair, RUN.nulls.level))


onerror:
    print("This run has not ended. The same command goes on where it stopped.")
