# The four stages. They meet only in stores; every rule is one call of the command line.

SHARDS = CONFIG["infer"]["shards"]
# The model as it was named: where the program is installed may change, and the weights' digest says what matters.
INFER_OPTIONS = arguments({"model": CONFIG["model"], **CONFIG["infer"], "shards": None})
# No parameter of its rule, because it changes no result, but a resource, which a module's rules know too.
DASK = arguments({"dask": CONFIG["dask"]})


wildcard_constraints:
    shard="[0-9]+",
    shards="[0-9]+",


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
        options=lambda wildcards: INFER_OPTIONS,
        record=record("infer"),
        version=(STAGE_VERSIONS["infer"], WEIGHTS_SHA256),
    shell:
        "sampath-wsi infer {input:q} --out {params.store:q} {params.options}"
        " --threads {threads} --record {params.record:q} > {log:q} 2>&1"


# With infer.shards: n, n jobs take the place of that one. Each writes a store of its own, which is no declared output
# either and survives a crash; the last rule moves their files together.
rule infer_shard:
    input:
        SLIDE_DIR / "tiles.zarr",
    output:
        temp(
            touch(SLIDE_DIR / "probabilities.zarr.shards" / "{shard}-of-{shards}.done")
        ),
    log:
        LOGS / "infer-{shard}-of-{shards}.log",
    benchmark:
        BENCHMARKS / "infer-{shard}-of-{shards}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 4
    resources:
        gpu=0 if CONFIG["infer"]["device"] == "cpu" else 1,
    params:
        store=str(SLIDE_DIR / "probabilities.zarr"),
        options=lambda wildcards: INFER_OPTIONS,
        record=record("infer-{shard}-of-{shards}"),
        version=(STAGE_VERSIONS["infer"], WEIGHTS_SHA256),
    shell:
        "sampath-wsi infer {input:q} --out {params.store:q} --shard {wildcards.shard}/{wildcards.shards}"
        " {params.options} --threads {threads} --record {params.record:q} > {log:q} 2>&1"


rule infer_join:
    input:
        expand(
            SLIDE_DIR / "probabilities.zarr.shards" / "{shard}-of-{shards}.done",
            shard=range(1, SHARDS + 1),
            shards=SHARDS,
            allow_missing=True,
        ),
    output:
        SLIDE_DIR / "probabilities.zarr" / "zarr.json",
    log:
        LOGS / "infer.log",
    benchmark:
        BENCHMARKS / "infer.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        store=lambda wildcards, output: Path(output[0]).parent,
        shards=SHARDS,
        record=record("infer"),
        version=STAGE_VERSIONS["infer"],
    shell:
        "sampath-wsi join {params.store:q} --shards {params.shards} --record {params.record:q} > {log:q} 2>&1"


if SHARDS == 1:

    ruleorder: infer > infer_join

else:

    ruleorder: infer_join > infer


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
    resources:
        dask=lambda wildcards: DASK,
    params:
        probabilities=lambda wildcards, input: Path(input[0]).parent,
        store=lambda wildcards, output: Path(output[0]).parent,
        options=lambda wildcards: arguments(CONFIG["stitch"]),
        record=record("stitch"),
        version=STAGE_VERSIONS["stitch"],
    shell:
        "sampath-wsi stitch {params.probabilities:q} --out {params.store:q} {params.options} {resources.dask}"
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
    params:
        store=lambda wildcards, input: Path(input[0]).parent,
        options=lambda wildcards: arguments({**CONFIG["vectorize"], "tiles": None}),
        record=record("vectorize"),
        version=STAGE_VERSIONS["vectorize"],
    shell:
        "sampath-wsi vectorize {params.store:q} --out {output:q} {params.options}"
        " --record {params.record:q} > {log:q} 2>&1"
