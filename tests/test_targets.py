"""Targets that nothing makes are refused by what may be meant."""

import pytest

from convergent.config.targets import TargetError, check_targets

NAMES = ["all", "fig3", "figS1", "atlas", "net1", "net2", "net1-net2", "net1-net3", "similarity"]
NETS = ["net1", "net2", "net3"]


def check(*targets):
    check_targets(targets, NAMES, NETS, "results/digits")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("fig33", r"^fig33: no such target; did you mean fig3"),
        ("figs1", r"did you mean figS1( or|\?)"),
        ("Atlas", r"did you mean atlas\?"),
        ("net2-net1", r"^net2-net1: pairs are named in the order of the nets: net1-net2$"),
        ("results/digits/figures/net2-net1/fig3.png", r"^net2-net1: .*: net1-net2$"),
        ("net1-net7", r"^net1-net7: there is no net net7; nets are net1, net2, net3$"),
        ("net1-net1", "a pair has two nets"),
        ("clean", "a run is its folder, results/digits$"),
        ("qqqq", r"^qqqq: no such target \(docs/targets.md"),
    ],
)
def test_the_message_says_what_may_be_meant(target, message):
    with pytest.raises(TargetError, match=message):
        check("fig3", target)


def test_targets_files_and_existing_folders_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").touch()
    check("all", "net1-net2", "results/digits/figures/net1-net3/fig3.png", "own", "report.zip")
    check("results/digits/pairs/left-right/match.csv")  # Snakemake says that nothing makes it.


def test_the_name_of_a_run_is_no_pair():
    check_targets(["results/mlp-net1/figures/net1-net2/fig3.png"], NAMES, NETS, "results/mlp-net1")
