# Tiles with their mean probabilities, for QuPath's measurement maps: made where the configuration asks for them
# (vectorize: {tiles: true}).

TILE_OBJECTS = [str(SLIDE.tile_objects)] if CONFIG.vectorize.tiles else []


rule tile_objects:
    input:
        SLIDE.segmentation / "zarr.json",
    output:
        SLIDE.tile_objects,
    log:
        LOGS / "tile-objects.log",
    benchmark:
        BENCHMARKS / "tile-objects.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        store=lambda wildcards, input: Path(input[0]).parent,
        options=lambda wildcards: as_flags({"frame": CONFIG.vectorize.frame}),
        record=str(SLIDE.record("tile-objects")),
        version=VERSIONS["tile-objects"],
    shell:
        "sampath-wsi qupath tiles {params.store:q} --out {output:q} {params.options}"
        " --record {params.record:q} > {log:q} 2>&1"
