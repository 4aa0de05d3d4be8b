# Shared by the other files: the checked configuration, paths, code fingerprints.
import sys

from jinja2 import Environment, StrictUndefined
from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from convergent.config import (
    PAPER_DECAYS,
    ConfigError,
    check_data,
    image_sources,
    load,
)
from convergent.devices import slow_products
from convergent.fingerprint import fingerprint

# Snakemake puts what overlays name first; nets keep the order of config.yaml, and so do pairs.
base = load_configfile(Path(workflow.basedir) / "config.yaml").get("nets")
if isinstance(base, dict) and isinstance(config.get("nets"), dict):
    config["nets"] = {**base, **config["nets"]}
try:
    RUN = load(config)
    check_data(RUN)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

if slow_products():
    logger.warning(slow_products())

RESULTS = f"results/{RUN.run}"
# Of activations.smk, or the last two of observation.smk.
ACTIVATIONS = f"{RESULTS}/activations/{{net}}.zarr"
STATISTICS = f"{RESULTS}/statistics/{{net}}.zarr"
CORRELATION = f"{RESULTS}/pairs/{{pair}}/correlation.zarr"
LOGS = f"{RESULTS}/logs"
TIMES = f"{RESULTS}/benchmarks"
# A GPU is asked for only where one may be used; profiles cap how many there are.
GPU = 0 if RUN.device == "cpu" else 1
# Large layers are worth several threads; small ones are done before a thread would help.
HEAVY = RUN.values_per_image > 100_000
WIDEST = max(RUN.widths.values())
# Categories of the report.
ONE_TO_ONE = "Section 3: one to one"
MORE_MATCHING = "Section S.2: more matching"
MEAN_ACTIVATIONS = "Section S.4: mean activations"
FEW_TO_ONE = "Section 4: few to one"
MANY_TO_MANY = "Section S.3: many to many"


wildcard_constraints:
    net="|".join(RUN.nets),
    pair="|".join(RUN.pairs),


def code(script):
    """Fingerprint of a script and the library code that it reaches."""
    return fingerprint(Path(workflow.basedir) / "workflow/scripts" / script)


def reduction_mb(wildcards, threads):
    """Memory of a job that reduces activations: a few matrices of a layer for each thread."""
    return 1500 + threads * (200 + 32 * WIDEST**2 // 10**6)


def observation_mb(wildcards):
    """Memory of the job that observes all nets: batches, samples, matrices of all pairs."""
    bytes_each = 4 if RUN.activations.dtype == "float32" else 2
    nets, options = len(RUN.nets), RUN.activations
    batches = 4 * options.batch_size * RUN.values_per_image * bytes_each
    samples = RUN.statistics.samples * sum(RUN.widths.values()) * nets * bytes_each
    matrices = 20 * nets**2 * sum(units**2 for units in RUN.widths.values())
    return 3000 + 500 * RUN.training.workers + (batches + samples + matrices) // 10**6


def figure(name, category, pair):
    """Output of a figure of a pair or of all nets: PNG, captioned in the report, and PDF."""
    path = (
        f"{RESULTS}/figures/{pair}/{name}"
        if pair != "all"
        else f"{RESULTS}/figures/{name}"
    )
    png = report(
        f"{path}.png",
        caption=f"../report/{name}.rst",
        category=category,
        labels={"figure": name, "pair": pair},
    )
    return [png, f"{path}.pdf"]


def reported():
    """What the rules so far mark for the report, of the configured pair and of all: by file,
    its section, labels and caption."""
    captions = Environment(undefined=StrictUndefined)
    found = {}
    outputs = ((rule, output) for rule in workflow.rules for output in rule.output)
    for rule, output in outputs:
        marked = output.flags.get("report")
        if not marked or rule.has_wildcards():
            continue
        # Those that are functions of wildcards are so of none, too.
        params = {k: v({}) if callable(v) else v for k, v in rule.params.items()}
        layers = params.get("layers", [])
        layer = params.get("layer") or ", ".join(layers)
        name = marked.labels.get("figure") or marked.labels["table"]
        text = (Path(workflow.basedir) / f"workflow/report/{name}.rst").read_text()
        found[str(output)] = {
            "section": marked.category,
            "labels": marked.labels | ({"layer": layer} if layer else {}),
            "caption": captions.from_string(text).render(snakemake={"params": params}),
        }
    return found


def information_mb(wildcards, threads):
    """Memory of a job on mutual information: codes of both nets, packed and plain; matrices."""
    return 1000 + WIDEST * RUN.statistics.samples * 4 // 10**6 + 40 * WIDEST**2 // 10**6


def pair_of(wildcards):
    """The pair of a job; of a target by name, the one that the configuration chooses."""
    return wildcards.get("pair", RUN.pair)


def of_pair(path, member=None):
    """Input function: `path` for the pair of a job, or for its first (0) or second (1) net."""

    def paths(wildcards):
        pair = pair_of(wildcards)
        return path.format(pair=pair, net=pair.split("-")[member or 0])

    return paths


def made_by_pair(wildcards):
    """What made the activations of both nets of a job's pair."""
    return [RUN.made_by(net) for net in pair_of(wildcards).split("-")]


def where_sgd(path):
    """Input function: `path` for the pair whose maps are fitted by SGD too, else nothing."""

    def paths(wildcards):
        asked = RUN.sgd_layers and wildcards.pair == RUN.pair
        return path.format(pair=wildcards.pair) if asked else []

    return paths
