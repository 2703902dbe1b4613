# What all rules share: the checked configuration, the slides, and how options become arguments.

import builtins
import json
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from sampath_wsi.content import ContentKeys
from sampath_wsi.errors import SampathError
from sampath_wsi.model.card import CARD_NAME, ModelCard
from sampath_wsi.model.zoo import resolve_model
from sampath_wsi.options import as_flags, load_config
from sampath_wsi.results import RunResults
from sampath_wsi.runs.plan import tell_scripts
from sampath_wsi.runs.sheet import read_slides
from sampath_wsi.stages import VERSIONS
from sampath_wsi.stores.integrity import set_aside
from sampath_wsi.stores.store import aside_of
from sampath_wsi.training.experiments.plan import plan_experiments

# Training and the experiments need neither slides nor a model: then nobody is told that these cannot be read.
WITHOUT_SLIDES = "all" not in sys.argv and any(
    re.fullmatch("train|(experiment|sweep)_.*", word) for word in sys.argv
)
SLIDES, MODEL, WEIGHTS_SHA256, INFERRED_WITH = {}, None, None, None
try:
    CONFIG = load_config(config)
    EXPERIMENTS = plan_experiments(CONFIG, VERSIONS["train"])
    if not WITHOUT_SLIDES:
        SLIDES = {row.slide: row for row in read_slides(CONFIG.slides)}
        MODEL = ModelCard.read(resolve_model(CONFIG.model) / CARD_NAME)
        WEIGHTS_SHA256 = MODEL.weights_sha256
        # As stores record it, and the version of the stage.
        INFERRED_WITH = [
            VERSIONS["infer"],
            WEIGHTS_SHA256,
            MODEL.settings_sha256,
            [(each.name, each.color) for each in MODEL.classes],
        ]
except SampathError as error:
    raise WorkflowError(str(error)) from None

EXPERIMENT_DIR = EXPERIMENTS["bcss"].folder.parent
RESULTS = RunResults(Path(CONFIG.output))
SLIDE = RESULTS.slide("{slide}")
LOGS = RESULTS.logs / "{slide}"
BENCHMARKS = RESULTS.benchmarks / "{slide}"
CONTENT = ContentKeys(RESULTS.folder / ".content.json")
# Rules that write probabilities.
INFERENCE = ("infer", "infer_join")
# Files that rules of this workflow make; every other file of the sample sheet is its user's.
MADE_HERE = {"data/demo/demo.tif", "data/demo/demo.truth.tif"}
COHORT_FLAGS = as_flags(
    {
        "slides": CONFIG.slides,
        "results": RESULTS.folder,
        "out": RESULTS.table,
        "page": RESULTS.page,
        "model": CONFIG.model,
        "config": json.dumps(CONFIG.segmentation),
    }
)
COHORT_COMMAND = f"sampath-wsi cohort {COHORT_FLAGS}"

# Parameters decide about a result: Snakemake makes it anew where one changes (options, versions, the content of files).
# What changes no result (paths, devices) is a parameter too, but a function of `threads`, `input` or `output`: these
# Snakemake does not compare. No option that decides may be such a function.


def make_cohort_now():
    """Page and table of what there is, outside of Snakemake's jobs.

    They get a time before that of every result, so that the next run that ends well makes them anew, also where it only
    leaves out the slides that failed.
    """
    # Not a format: the pattern of slides may hold braces. Exit code 2 says that slides failed.
    command = COHORT_COMMAND.replace("{", "{{").replace("}", "}}")
    shell(f"{command} || test $? = 2")
    times = [
        path.stat().st_mtime for path in RESULTS.folder.glob("slides/*/summary.json")
    ]
    for path in RESULTS.folder.glob("cohort.*"):
        if times:
            os.utime(path, (min(times) - 1,) * 2)


wildcard_constraints:
    slide="|".join(re.escape(slide) for slide in SLIDES),


def made_here(column):
    """An input function: the file in a column of the sample sheet, if a rule of this workflow makes it.

    Files of users are no inputs: a missing one must fail the stage of its own slide, with a message, and not the whole
    workflow, and their content decides, not their time (`content`).
    """

    def find(wildcards):
        path = getattr(SLIDES[wildcards.slide], column)
        return [ancient(path)] if path in MADE_HERE else []

    return find


def content(wildcards, *columns):
    """The content of files of a slide's row, as a parameter."""
    paths = {column: getattr(SLIDES[wildcards.slide], column) for column in columns}
    return [
        path if path in MADE_HERE else path and CONTENT.of(path, whole=column != "path")
        for column, path in paths.items()
    ]


def slide_mb(wildcards):
    """Size in MB of the slide of a job, with the files beside it that belong to it; 0 for other jobs and missing slides.

    Profiles estimate memory and time with it.
    """
    row = SLIDES.get(getattr(wildcards, "slide", None))
    if row is None:
        return 0
    path = Path(row.path)
    # MIRAX keeps the pixels in a folder of the same name, DICOM in the other files of the folder.
    parts = {".mrxs": path.with_suffix("").glob("*"), ".dcm": path.parent.glob("*.dcm")}
    files = {path, *parts.get(path.suffix.lower(), ())}
    return sum(file.stat().st_size for file in files if file.is_file()) // 1_000_000


# Snakemake evaluates the expressions of profiles with Python's builtins and a few names of its own, none of ours.
builtins.slide_mb = slide_mb
tell_scripts()


def schedule_when_jobs_end():
    """Take away Snakemake's own limit of 100 new jobs a second; one that a user sets stays.

    With a limit, Snakemake 9.27 looks for jobs to start once a second, and each time that a job ends begins to do so once
    more, for ever: after some hundred jobs it takes a core to itself. Without, it looks when a job ends.
    """
    limiter = getattr(workflow.scheduler, "job_rate_limiter", None)
    if limiter is not None and (limiter.max_jobs, limiter.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def made_of(wildcards):
    """Return everything that determines the tiles of a slide, as a parameter."""
    row = SLIDES[wildcards.slide]
    model = [MODEL.mpp, MODEL.tile_px, MODEL.overlap_px, MODEL.output_stride]
    files = content(wildcards, "path", "tissue_mask", "roi")
    return [*files, row.mpp, *model, CONFIG.tile.flags(), VERSIONS["tile"]]


def tile_flags(wildcards):
    """Return the flags of the command `tile` for a slide."""
    row = SLIDES[wildcards.slide]
    known = {
        "model": CONFIG.model,
        "slide_id": row.slide,
        "mpp": row.mpp,
        "mpp_source": "sample sheet",
        "tissue_mask": row.tissue_mask,
        "roi": row.roi,
    }
    return f"{as_flags(known)} {CONFIG.tile.flags()} {CONFIG.tile.flags(machine=True)}"


def kept_stores():
    """Of the stores that are kept those of which anything is there: it is to be whole.

    Nothing that is finished asks for them any more, so a store that was cut off or set aside (`sampath-wsi check
    --repair`) would stay so. Who needs the space may delete them altogether.
    """
    slides = [RESULTS.slide(slide) for slide in SLIDES]
    stores = [
        store for each in slides for store in (each.probabilities, each.segmentation)
    ]
    there = [store for store in stores if store.exists() or aside_of(store).exists()]
    return [store / "zarr.json" for store in there]


def keep_finished_inference():
    """Before anything runs: keep the probabilities of slides whose inference is to run again.

    Snakemake removes the output of a job before it does it again, also where only the words of an option changed, or
    where it was killed itself while the job ended well. But that file is written last: with it a store is whole, and set
    aside it is what the job finds done, if all that decides is the same. (Not where a job was forced by name.)
    """
    forced = {str(each) for each in workflow.dag_settings.forcerun}
    for job in workflow.dag.needrun_jobs():
        if job.rule.name not in INFERENCE or forced & {job.rule.name, *job.output}:
            continue
        store = RESULTS.slide(job.wildcards.slide).probabilities
        if (store / "zarr.json").exists():
            try:
                set_aside(store, [])
            except SampathError as error:
                logger.warning(str(error))
