# A run as others get it, and a run of one's own beside a published one. Only made by name.
PUBLISHED = Path(RUN.verify.against or SOURCE / "docs/findings" / RUN.run)
VERIFIED = {file.stem for file in PUBLISHED.rglob("*.csv")}


rule release:
    input:
        rules.all.input,
        # What was made by name, if it is there.
        list(REPORTED),
    output:
        archive=f"{RESULTS}/release/{RUN.run}.tar.gz",
        manifest=f"{RESULTS}/release/manifest.json",
        tables=directory(f"{RESULTS}/release/tables"),
    log:
        f"{LOGS}/release.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        folder=lambda wildcards, output: str(Path(output.archive).parents[1]),
        configuration=RUN.model_dump(mode="json", exclude={"accept_changes", "verify"}),
        leave_out=RUN.release.leave_out,
        code=code("release.py"),
    message:
        f"Packing {RUN.run} for others"
    script:
        "../scripts/release.py"


rule verify:
    input:
        (
            [f"{RESULTS}/tables/{name}.csv" for name in TABLES if name in VERIFIED]
            or refused(
                f"verify: nothing is published of {RUN.run}, there are no tables in {PUBLISHED}; "
                "name the folder of a published run's tables under verify.against"
            )
        ),
    log:
        f"{LOGS}/verify.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        tables=lambda wildcards, input: str(Path(input[0]).parent),
        against=str(PUBLISHED),
        code=code("verify.py"),
    message:
        f"Comparing the tables of {RUN.run} with {PUBLISHED}"
    script:
        "../scripts/verify.py"
