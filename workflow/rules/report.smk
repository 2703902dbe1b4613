# What people look at: each slide's picture and summary, its scores where the truth is known, and the cohort's page and table.

# Of every slide. Page and table alone do not ask for them: those which are made after a failure come without.
FILES = [str(SLIDE.geojson), str(SLIDE.summary_file)]


rule report:
    input:
        slide=made_here("path"),
        segmentation=SLIDE.segmentation / "zarr.json",
        geojson=SLIDE.geojson,
    output:
        overlay=report(
            SLIDE.overlay,
            category="Slides",
            labels={"slide": "{slide}"},
            caption="../report/overlay.rst",
        ),
        thumbnail=SLIDE.thumbnail,
        classes=SLIDE.thumbnail_classes,
        summary=SLIDE.summary_file,
    log:
        LOGS / "report.log",
    benchmark:
        BENCHMARKS / "report.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        slide=lambda wildcards, threads: SLIDES[wildcards.slide].path,
        store=lambda wildcards, input: Path(input.segmentation).parent,
        options=lambda wildcards: as_flags({"mpp": SLIDES[wildcards.slide].mpp}),
        record=str(SLIDE.record("report")),
        version=VERSIONS["report"],
    shell:
        "sampath-wsi report {params.slide:q} {params.store:q} --overlay {output.overlay:q} --summary {output.summary:q}"
        " --thumbnail {output.thumbnail:q} {params.options} --record {params.record:q} > {log:q} 2>&1"


rule evaluate:
    input:
        segmentation=SLIDE.segmentation / "zarr.json",
        truth=made_here("truth"),
    output:
        SLIDE.evaluation,
    log:
        LOGS / "evaluate.log",
    benchmark:
        BENCHMARKS / "evaluate.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        store=lambda wildcards, input: Path(input.segmentation).parent,
        truth=lambda wildcards, threads: SLIDES[wildcards.slide].truth,
        made_of=lambda wildcards: content(wildcards, "truth"),
        record=str(SLIDE.record("evaluate")),
        version=VERSIONS["evaluate"],
    shell:
        "sampath-wsi evaluate {params.store:q} {params.truth:q} --out {output:q}"
        " --record {params.record:q} > {log:q} 2>&1"


rule cohort:
    input:
        expand(SLIDE.summary_file, slide=SLIDES),
        [
            expand(SLIDE.evaluation, slide=slide)
            for slide, row in SLIDES.items()
            if row.truth
        ],
        # Not read: the page links to what is there.
        expand(IMAGES + TILE_OBJECTS, slide=SLIDES),
    output:
        page=report(
            RESULTS.page,
            category="Cohort",
            labels={"what": "Page"},
            caption="../report/cohort_page.rst",
        ),
        table=report(
            RESULTS.table,
            category="Cohort",
            labels={"what": "Table"},
            caption="../report/cohort.rst",
        ),
    log:
        RESULTS.logs / "cohort.log",
    benchmark:
        RESULTS.benchmarks / "cohort.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        # A function, so that Snakemake leaves braces in it alone.
        command=lambda wildcards, threads: COHORT_COMMAND,
        rows=[(row.slide, row.extra) for row in SLIDES.values()],
        model=WEIGHTS_SHA256,
    # Exit code 2: the table says that slides failed. Here that can only be of a step which is no longer wanted.
    shell:
        "({params.command} || test $? = 2) > {log:q} 2>&1"
