# Pictures to open beside the slide: made where the configuration asks for them (images: ...).

from sampath_wsi.classes import class_index

IMAGE_FILES = {
    "tiff": "classes.ome.tif",
    "probability": "probability.ome.tif",
    "entropy": "entropy.ome.tif",
}
IMAGES = (
    []
    if WITHOUT_SLIDES
    else [file for key, file in IMAGE_FILES.items() if CONFIG["images"][key]]
)
# A class that the model does not know is named before anything runs.
if IMAGES and CONFIG["images"]["probability"]:
    try:
        class_index(
            ModelCard.read(MODEL_DIR / CARD_NAME).classes,
            CONFIG["images"]["probability"],
        )
    except SampathError as error:
        raise WorkflowError(f"config, images.probability: {error}") from None


if IMAGES:

    rule images:
        input:
            SLIDE_DIR / "segmentation.ome.zarr" / "zarr.json",
        output:
            [SLIDE_DIR / name for name in IMAGES],
        log:
            LOGS / "images.log",
        benchmark:
            BENCHMARKS / "images.tsv"
        conda:
            "../../envs/cpu.yaml"
        threads: 2
        params:
            store=lambda wildcards, input: Path(input[0]).parent,
            folder=lambda wildcards, output: Path(output[0]).parent,
            options=lambda wildcards: arguments(
                {
                    "classes": CONFIG["images"]["tiff"],
                    "probability": CONFIG["images"]["probability"],
                    "entropy": CONFIG["images"]["entropy"],
                }
            ),
            record=record("images"),
            version=STAGE_VERSIONS["images"],
        shell:
            "sampath-wsi images {params.store:q} --out-dir {params.folder:q} {params.options}"
            " --threads {threads} --record {params.record:q} > {log:q} 2>&1"
