"""What pip and conda install, and that each rule's environment has what its script imports."""

import ast
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from running import ROOT, parsed

ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
# Names of conda-forge that are not PyPI's.
ON_PYPI = {"dask-core": "dask", "matplotlib-base": "matplotlib", "pytorch": "torch"}
# Of the whole workflow, not of a rule.
OUTSIDE = {"snakemake", "snakemake-executor-plugin-slurm", "pyyaml"}

# Runs what a script imports where nothing else can be imported and the library is not installed.
IMPORTS = """
import ast, json, sys
from pathlib import Path

hidden, workflow, scripts, modules = json.loads(sys.argv[1])


class Hides:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        return None if name.split(".")[0] in hidden else self.finder.find_spec(name, *rest)


sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(workflow)]
sys.meta_path = [Hides(finder) for finder in sys.meta_path]
for script in scripts:
    sys.path.insert(0, str(Path(script).parent))
    for node in ast.walk(ast.parse(Path(script).read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            try:
                exec(compile(ast.Module([node], []), script, "exec"), {})
            except ImportError as error:
                sys.exit(f"{Path(script).name}: {error}")
for module in modules:
    try:
        __import__(module)
    except ImportError as error:
        sys.exit(f"{module}: {error}")
"""


def requirements(path):
    """Requirements of an environment by PyPI's names."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    entries = [
        e for entry in entries for e in (entry["pip"] if isinstance(entry, dict) else [entry])
    ]
    found = [Requirement(entry) for entry in entries if entry != "pip"]
    return {ON_PYPI.get(r.name, r.name): r.specifier for r in found}


def pyproject():
    values = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [Requirement(entry) for entry in values["dependencies"]]
    return {r.name: r.specifier for r in found} | {
        "python": Requirement("python" + values["requires-python"]).specifier
    }


def with_dependencies(names):
    """Distributions of `names` and all that they need."""
    found, pending = set(), [name for name in names if name != "python"]
    while pending:
        name = canonicalize_name(pending.pop())
        if name in found:
            continue
        found.add(name)
        for entry in importlib.metadata.requires(name) or []:
            requirement = Requirement(entry)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                pending.append(requirement.name)
    return found


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_conda_environments_ask_for_what_pip_installs(path):
    expected = pyproject()
    # Dask's array and distributed are extras on PyPI and packages of conda-forge.
    expected["distributed"] = expected["dask"]
    found = requirements(path)
    assert found == {name: expected[name] for name in found}
    assert all("<" in str(specifier) for specifier in found.values())


def test_no_requirement_is_in_no_environment():
    everywhere = set().union(*map(requirements, ENVIRONMENTS))
    assert pyproject().keys() - everywhere == OUTSIDE


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_scripts_import_no_more_than_their_environment_has(tmp_path, path):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    scripts, modules = set(), set()
    for overlay in ({}, {"activations": {"store": False}}):
        for rule in parsed(tmp_path, ROOT / "Snakefile", overlay).rules:
            if rule.script and Path(rule.conda_env).name == path.name:
                scripts.add(str(ROOT / "workflow/rules" / rule.script))
                # What generic scripts call by name imports, too.
                calls = [rule.params.get(key) for key in ("draw", "make")]
                modules |= {call.partition(":")[0] for call in calls if call}
    assert scripts
    distributions = with_dependencies(requirements(path))
    packages = importlib.metadata.packages_distributions().items()
    hidden = [
        top for top, names in packages if not distributions & set(map(canonicalize_name, names))
    ]
    hidden = [top for top in hidden if top != "convergent"]
    job = json.dumps([hidden, str(ROOT / "workflow"), sorted(scripts), sorted(modules)])
    run = subprocess.run([sys.executable, "-c", IMPORTS, job], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_what_the_library_imports_late_is_in_the_environment_of_nets():
    """Everything that a function imports when it is called, as no other test can see it.

    Extras are for those who ask for them, and what reads the command line runs within Snakemake.
    """
    values = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {Requirement(e).name for es in values["optional-dependencies"].values() for e in es}
    imported = set()
    library = ROOT / "workflow/convergent"
    for module in set(library.rglob("*.py")) - {library / "running/command_line.py"}:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in names}
    distributions = importlib.metadata.packages_distributions()
    own = {name for path in ENVIRONMENTS for name in requirements(path)}
    for top in imported - set(sys.stdlib_module_names) - {"convergent"} - extras:
        assert own & set(map(canonicalize_name, distributions[top])), f"{top} is in no environment"
