# What people look at: each slide's picture and summary, its scores where the truth is known, and the cohort's page and table.

# Of every slide. Page and table alone do not ask for them: those which are made after a failure come without.
FILES = ["segmentation.geojson.gz", "summary.json"]


rule report:
    input:
        slide=existing("path"),
        segmentation=SLIDE_DIR / "segmentation.ome.zarr" / "zarr.json",
        geojson=SLIDE_DIR / "segmentation.geojson.gz",
    output:
        overlay=report(
            SLIDE_DIR / "overlay.png",
            category="Slides",
            labels={"slide": "{slide}"},
            caption="../report/overlay.rst",
        ),
        thumbnail=SLIDE_DIR / "thumbnail.jpg",
        classes=SLIDE_DIR / "thumbnail-classes.png",
        summary=SLIDE_DIR / "summary.json",
    log:
        LOGS / "report.log",
    benchmark:
        BENCHMARKS / "report.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        slide=lambda wildcards: SLIDES[wildcards.slide].path,
        store=lambda wildcards, input: Path(input.segmentation).parent,
        options=lambda wildcards: arguments({"mpp": SLIDES[wildcards.slide].mpp}),
        record=record("report"),
        version=STAGE_VERSIONS["report"],
    shell:
        "sampath-wsi report {params.slide:q} {params.store:q} --overlay {output.overlay:q} --summary {output.summary:q}"
        " --thumbnail {output.thumbnail:q} {params.options} --record {params.record:q} > {log:q} 2>&1"


rule evaluate:
    input:
        segmentation=SLIDE_DIR / "segmentation.ome.zarr" / "zarr.json",
        truth=existing("truth"),
    output:
        SLIDE_DIR / "evaluation.json",
    log:
        LOGS / "evaluate.log",
    benchmark:
        BENCHMARKS / "evaluate.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        store=lambda wildcards, input: Path(input.segmentation).parent,
        truth=lambda wildcards: SLIDES[wildcards.slide].truth,
        record=record("evaluate"),
        version=STAGE_VERSIONS["evaluate"],
    shell:
        "sampath-wsi evaluate {params.store:q} {params.truth:q} --out {output:q}"
        " --record {params.record:q} > {log:q} 2>&1"


rule cohort:
    input:
        expand(SLIDE_DIR / "summary.json", slide=SLIDES),
        [
            expand(SLIDE_DIR / "evaluation.json", slide=slide)
            for slide, row in SLIDES.items()
            if row.truth
        ],
        # Not read: the page links to what is there.
        expand(SLIDE_DIR / "{file}", slide=SLIDES, file=IMAGES + TILE_OBJECTS),
    output:
        page=report(
            RESULTS / "cohort.html",
            category="Cohort",
            labels={"what": "Page"},
            caption="../report/cohort_page.rst",
        ),
        table=report(
            RESULTS / "cohort.tsv",
            category="Cohort",
            labels={"what": "Table"},
            caption="../report/cohort.rst",
        ),
    log:
        RESULTS / "logs" / "cohort.log",
    benchmark:
        RESULTS / "benchmarks" / "cohort.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        # A function, so that Snakemake leaves braces in it alone.
        command=lambda wildcards: COHORT_COMMAND,
        rows=[(row.slide, row.extra) for row in SLIDES.values()],
    # Exit code 2: the table says that slides failed. Here that can only be of a step which is no longer wanted.
    shell:
        "({params.command} || test $? = 2) > {log:q} 2>&1"
