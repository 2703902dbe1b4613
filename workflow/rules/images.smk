# Pictures to open beside the slide: made where the configuration asks for them (images: ...).

from sampath_wsi.classes import class_index

IMAGES = (
    []
    if WITHOUT_SLIDES
    else [
        str(SLIDE.image(name))
        for name in ("classes", "probability", "entropy")
        if getattr(CONFIG.images, name)
    ]
)
# A class that the model does not know is named before anything runs.
if IMAGES and CONFIG.images.probability:
    try:
        class_index(MODEL.classes, CONFIG.images.probability)
    except SampathError as error:
        raise WorkflowError(f"config, images.probability: {error}") from None


if IMAGES:

    rule images:
        input:
            SLIDE.segmentation / "zarr.json",
        output:
            IMAGES,
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
            options=lambda wildcards: CONFIG.images.flags(),
            record=str(SLIDE.record("images")),
            version=VERSIONS["images"],
        shell:
            "sampath-wsi images {params.store:q} --out-dir {params.folder:q} {params.options}"
            " --threads {threads} --record {params.record:q} > {log:q} 2>&1"
