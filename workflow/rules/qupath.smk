# Tiles with their mean probabilities, for QuPath's measurement maps: made where the configuration asks for them
# (vectorize: {tiles: true}).

TILE_OBJECTS = ["tiles.geojson.gz"] if CONFIG["vectorize"]["tiles"] else []


rule tile_objects:
    input:
        SLIDE_DIR / "segmentation.ome.zarr" / "zarr.json",
    output:
        SLIDE_DIR / "tiles.geojson.gz",
    log:
        LOGS / "tile-objects.log",
    benchmark:
        BENCHMARKS / "tile-objects.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        store=lambda wildcards, input: Path(input[0]).parent,
        options=lambda wildcards: arguments({"frame": CONFIG["vectorize"]["frame"]}),
        record=record("tile-objects"),
        version=STAGE_VERSIONS["tile-objects"],
    shell:
        "sampath-wsi qupath tiles {params.store:q} --out {output:q} {params.options}"
        " --record {params.record:q} > {log:q} 2>&1"
