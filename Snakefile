# Whole slides -> tiles -> SAM-Path -> map -> polygons. Run it with: snakemake --cores 8 --resources gpu=1

from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/qupath.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/demo.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/experiments.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        RESULTS.page,
        RESULTS.table,
        expand(FILES + IMAGES + TILE_OBJECTS, slide=SLIDES),
        kept_stores(),


onstart:
    CONTENT.save()
    schedule_when_jobs_end()
    keep_finished_inference()


# A slide that fails does not stop the others (keep-going), but then page and table are not made as an ordinary job: they
# are made here, with the reason of every failure, from the records that the stages keep.
onerror:
    if not WITHOUT_SLIDES:
        make_cohort_now()
