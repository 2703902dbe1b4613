# Whole slides -> tiles -> SAM-Path -> map -> polygons. Run it with: snakemake --cores 8 --resources gpu=1

from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/demo.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/experiments.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        RESULTS / "cohort.tsv",
        expand(SLIDE_DIR / "segmentation.geojson.gz", slide=SLIDES),


# A slide that fails does not stop the others (keep-going), but then the table is not made as an ordinary job: it is made
# here, with the reason of every failure, from the records that the stages keep.
onerror:
    if not WITHOUT_SLIDES:
        # Not a format: the pattern of slides may hold braces.
        shell(COHORT_COMMAND.replace("{", "{{").replace("}", "}}"))
