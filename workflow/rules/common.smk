# Shared by the other files: the checked configuration, paths, code fingerprints.
import sys

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from convergent.config import ConfigError, check_data, image_sources, load
from convergent.fingerprint import fingerprint

# Snakemake puts what overlays name first; nets keep the order of config.yaml, and so do pairs.
if isinstance(config["nets"], dict):
    config["nets"] = {**load_configfile("config.yaml")["nets"], **config["nets"]}
try:
    RUN = load(config)
    check_data(RUN)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

RESULTS = f"results/{RUN.run}"
LOGS = f"{RESULTS}/logs"
TIMES = f"{RESULTS}/benchmarks"
# A GPU is asked for only where one may be used; profiles cap how many there are.
GPU = 0 if RUN.device == "cpu" else 1
# Large layers are worth several threads; small ones are done before a thread would help.
HEAVY = RUN.values_per_image > 100_000
WIDEST = max(RUN.units.values())


wildcard_constraints:
    net="|".join(RUN.nets),
    pair="|".join(RUN.pairs),


def code(script):
    """Fingerprint of a script and the library code that it reaches."""
    return fingerprint(Path(workflow.basedir) / "workflow/scripts" / script)


def reduction_mb(wildcards, threads):
    """Memory of a job that reduces activations: a few matrices of a layer for each thread."""
    return 1500 + threads * (200 + 32 * WIDEST**2 // 10**6)


def figure(name, category, pair=None):
    """Output of a figure: PNG, with its caption in the report, and PDF."""
    path = f"{RESULTS}/figures/{pair}/{name}" if pair else f"{RESULTS}/figures/{name}"
    png = report(
        f"{path}.png",
        caption=f"../report/{name}.rst",
        category=category,
        labels={"figure": name, "pair": pair or "all"},
    )
    return [png, f"{path}.pdf"]


def of_pair(path, member):
    """Input function: `path` with the first (0) or second (1) net of the pair as {net}."""
    return lambda wildcards: path.format(net=wildcards.pair.split("-")[member])
