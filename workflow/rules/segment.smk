# The four stages. They meet only in stores; every rule is one call of the command line.

PARTS = CONFIG.infer.parts
INFER_FLAGS = f"{as_flags({'model': CONFIG.model})} {CONFIG.infer.flags()} {CONFIG.infer.flags(machine=True, without=['parts'])}"
GPU = 0 if CONFIG.infer.device == "cpu" else 1


wildcard_constraints:
    part="[0-9]+",
    parts="[0-9]+",


rule tile:
    input:
        slide=made_here("path"),
    output:
        temp(directory(SLIDE.tiles)),
    log:
        LOGS / "tile.log",
    benchmark:
        BENCHMARKS / "tile.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    params:
        slide=lambda wildcards, threads: SLIDES[wildcards.slide].path,
        flags=lambda wildcards, threads: tile_flags(wildcards),
        made_of=made_of,
        record=str(SLIDE.record("tile")),
    shell:
        "sampath-wsi tile {params.slide:q} --out {output:q} {params.flags}"
        " --threads {threads} --record {params.record:q} > {log:q} 2>&1"


# Declared is the file that names the content and is written last. The store itself is not: a store that a crash left
# unfinished must survive, so that the next run goes on with it, and Snakemake deletes declared outputs of failed jobs.
rule infer:
    input:
        SLIDE.tiles,
    output:
        SLIDE.probabilities / "zarr.json",
    log:
        LOGS / "infer.log",
    benchmark:
        BENCHMARKS / "infer.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 4
    resources:
        gpu=GPU,
    params:
        flags=lambda wildcards, threads: INFER_FLAGS,
        # The tiles are removed when they have served, and with them what Snakemake knew of how they were made.
        made_of=made_of,
        options=CONFIG.infer.flags(),
        store=lambda wildcards, output: Path(output[0]).parent,
        record=str(SLIDE.record("infer")),
        version=lambda wildcards: INFERRED_WITH,
    shell:
        "sampath-wsi infer {input:q} --out {params.store:q} {params.flags}"
        " --threads {threads} --record {params.record:q} > {log:q} 2>&1"


# With infer.parts: n, n jobs take the place of that one. Each writes a store of its own, which is no declared output
# either and survives a crash; the last rule moves their files together.
rule infer_part:
    input:
        SLIDE.tiles,
    output:
        temp(touch(SLIDE.part_marker("{part}", "{parts}"))),
    log:
        LOGS / "infer-{part}-of-{parts}.log",
    benchmark:
        BENCHMARKS / "infer-{part}-of-{parts}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 4
    resources:
        gpu=GPU,
    params:
        flags=lambda wildcards, threads: INFER_FLAGS,
        made_of=made_of,
        options=CONFIG.infer.flags(),
        store=str(SLIDE.probabilities),
        record=str(SLIDE.record("infer-{part}-of-{parts}")),
        version=lambda wildcards: INFERRED_WITH,
    shell:
        "sampath-wsi infer {input:q} --out {params.store:q} --part {wildcards.part}/{wildcards.parts}"
        " {params.flags} --threads {threads} --record {params.record:q} > {log:q} 2>&1"


rule infer_join:
    input:
        expand(
            SLIDE.part_marker("{part}", "{parts}"),
            part=range(1, PARTS + 1),
            parts=PARTS,
            allow_missing=True,
        ),
    output:
        SLIDE.probabilities / "zarr.json",
    log:
        LOGS / "infer.log",
    benchmark:
        BENCHMARKS / "infer.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        parts=lambda wildcards, threads: PARTS,
        made_of=made_of,
        options=CONFIG.infer.flags(),
        store=lambda wildcards, output: Path(output[0]).parent,
        record=str(SLIDE.record("infer")),
        version=lambda wildcards: INFERRED_WITH,
    shell:
        "sampath-wsi join {params.store:q} --parts {params.parts} --record {params.record:q} > {log:q} 2>&1"


if PARTS == 1:

    ruleorder: infer > infer_join

else:

    ruleorder: infer_join > infer


rule stitch:
    input:
        SLIDE.probabilities / "zarr.json",
    output:
        SLIDE.segmentation / "zarr.json",
    log:
        LOGS / "stitch.log",
    benchmark:
        BENCHMARKS / "stitch.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    params:
        flags=lambda wildcards, threads: CONFIG.stitch.flags(machine=True),
        probabilities=lambda wildcards, input: Path(input[0]).parent,
        store=lambda wildcards, output: Path(output[0]).parent,
        options=lambda wildcards: CONFIG.stitch.flags(),
        record=str(SLIDE.record("stitch")),
        version=VERSIONS["stitch"],
    shell:
        "sampath-wsi stitch {params.probabilities:q} --out {params.store:q} {params.options} {params.flags}"
        " --threads {threads} --record {params.record:q} > {log:q} 2>&1"


rule vectorize:
    input:
        SLIDE.segmentation / "zarr.json",
    output:
        SLIDE.geojson,
    log:
        LOGS / "vectorize.log",
    benchmark:
        BENCHMARKS / "vectorize.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        store=lambda wildcards, input: Path(input[0]).parent,
        options=lambda wildcards: CONFIG.vectorize.flags(without=["tiles"]),
        record=str(SLIDE.record("vectorize")),
        version=VERSIONS["vectorize"],
    shell:
        "sampath-wsi vectorize {params.store:q} --out {output:q} {params.options}"
        " --record {params.record:q} > {log:q} 2>&1"
