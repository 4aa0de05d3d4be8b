"""A copied run runs nothing again, whatever the times of its files."""

import shutil

from running import age, planned, snakemake

from convergent.running.copies import set_back_times

SNAKEFILE = """
rule last:
    input: "results/a/store", "results/a/large"
    output: "results/a/table"
    shell: "cat {input[0]}/* > {output}"

rule store:
    output: directory("results/a/store")
    shell: "mkdir {output} && echo 1 > {output}/chunk"

rule large:
    output: "results/a/large"
    # Snakemake compares the contents of smaller files.
    shell: "head -c 2000000 /dev/zero > {output}"
"""


def test_times_that_a_copy_has_lost_are_set_back(tmp_path, monkeypatch):
    original, copied = tmp_path / "original", tmp_path / "copied"
    original.mkdir()
    (original / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    snakemake(original)
    shutil.copytree(original, copied)
    age(copied / "results")
    assert planned(copied) == {"last": 1}
    monkeypatch.chdir(copied)
    assert set_back_times(".snakemake/metadata", "results/b") == 0
    assert set_back_times(".snakemake/metadata", "results/a") == 3
    assert planned(copied) == {}
    # What was made anew keeps its time, and so do all others.
    age(copied / "results/a/store")
    assert set_back_times(".snakemake/metadata", "results/a") == 0
    assert planned(copied) == {"last": 1}
