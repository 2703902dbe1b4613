# The four stages. They meet only in stores; every rule is one call of the command line.


rule tile:
    input:
        slide=existing("path"),
        tissue_mask=existing("tissue_mask"),
        region=existing("region"),
    output:
        temp(directory(SLIDE_DIR / "tiles.zarr")),
    log:
        LOGS / "tile.log",
    benchmark:
        BENCHMARKS / "tile.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    params:
        slide=lambda wildcards: SLIDES[wildcards.slide].path,
        options=lambda wildcards: arguments(tile_options(SLIDES[wildcards.slide])),
        record=record("tile"),
        version=STAGE_VERSIONS["tile"],
    shell:
        "sampath-wsi tile {params.slide:q} --out {output:q} {params.options}"
        " --threads {threads} --record {params.record:q} > {log:q} 2>&1"


# Declared is the file that names the content and is written last. The store itself is not: a store that a crash left
# unfinished must survive, so that the next run goes on with it, and Snakemake deletes declared outputs of failed jobs.
rule infer:
    input:
        SLIDE_DIR / "tiles.zarr",
    output:
        SLIDE_DIR / "probabilities.zarr" / "zarr.json",
    log:
        LOGS / "infer.log",
    benchmark:
        BENCHMARKS / "infer.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 4
    resources:
        gpu=0 if CONFIG["infer"]["device"] == "cpu" else 1,
    params:
        store=lambda wildcards, output: Path(output[0]).parent,
        options=arguments({"model": MODEL_DIR, **CONFIG["infer"]}),
        record=record("infer"),
        version=(STAGE_VERSIONS["infer"], WEIGHTS_SHA256),
    shell:
        "sampath-wsi infer {input:q} --out {params.store:q} {params.options}"
        " --threads {threads} --record {params.record:q} > {log:q} 2>&1"


rule stitch:
    input:
        SLIDE_DIR / "probabilities.zarr" / "zarr.json",
    output:
        SLIDE_DIR / "segmentation.ome.zarr" / "zarr.json",
    log:
        LOGS / "stitch.log",
    benchmark:
        BENCHMARKS / "stitch.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    params:
        probabilities=lambda wildcards, input: Path(input[0]).parent,
        store=lambda wildcards, output: Path(output[0]).parent,
        options=arguments(CONFIG["stitch"]),
        record=record("stitch"),
        version=STAGE_VERSIONS["stitch"],
    shell:
        "sampath-wsi stitch {params.probabilities:q} --out {params.store:q} {params.options}"
        " --threads {threads} --record {params.record:q} > {log:q} 2>&1"


rule vectorize:
    input:
        SLIDE_DIR / "segmentation.ome.zarr" / "zarr.json",
    output:
        SLIDE_DIR / "segmentation.geojson.gz",
    log:
        LOGS / "vectorize.log",
    benchmark:
        BENCHMARKS / "vectorize.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    params:
        store=lambda wildcards, input: Path(input[0]).parent,
        options=arguments(CONFIG["vectorize"]),
        record=record("vectorize"),
        version=STAGE_VERSIONS["vectorize"],
    shell:
        "sampath-wsi vectorize {params.store:q} --out {output:q} {params.options}"
        " --threads {threads} --record {params.record:q} > {log:q} 2>&1"
