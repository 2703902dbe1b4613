"""Options of trainings of one's own, and of the paper's experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from sampath_wsi.options.base import MACHINE, Device, Options, Several
from sampath_wsi.options.stages import Amount, Count, Precision, Share

Text = Annotated[str, Field(min_length=1)]
Part = Annotated[float, Field(gt=0, lt=1)]
Symmetries = Annotated[Literal[1, 4, 8], BeforeValidator(lambda given: {"1": 1, "4": 4, "8": 8}.get(str(given), given))]
Row = Literal["vanilla", "vanilla_pp", "no_pathology", "no_sam", "sampath"]
TrainedRow = Literal["no_pathology", "no_sam", "sampath"]
_ALL_ROWS: tuple[Row, ...] = ("vanilla", "vanilla_pp", "no_pathology", "no_sam", "sampath")


class TrainingOptions(Options):
    """A model of one's own: snakemake train."""

    data: Literal["annotations", "bcss", "crag", "glas", "synthetic", "synthetic-glands"] = "annotations"
    """the data to prepare: annotations, bcss, crag, glas, synthetic or synthetic-glands"""
    source: Text = "config/annotated.tsv"
    """the sheet of annotated slides, or the folder of the download; not used for synthetic data"""
    prepare: dict[str, object] = Field(default_factory=dict)
    """options of the command `prepare`, such as {mpp: 0.5, tile_px: 1024}"""
    recipe: Text = "config/experiments/annotations.yaml"
    """the recipe (YAML) that says how it is trained"""
    set: tuple[str, ...] = ()
    """keys of the recipe to set otherwise, such as epochs=10"""
    output: Text = "results/training"
    """the folder of data, checkpoints, model and scores"""
    val_share: Part = 0.2
    """the share of the samples that validates, in whole groups (patients or slides)"""
    seed: Count = 0
    """the seed by which groups are dealt"""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    devices: Annotated[int, Field(ge=1)] = Field(default=1, json_schema_extra=MACHINE)
    """number of GPUs of the training"""


class ScoringOptions(Options):
    """The data that a model is scored on, and the files that are written."""

    split: Text = "test"
    """which split"""
    splits: Path | None = None
    """a splits file (CSV) instead of the data's own splits"""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    threads: Annotated[int, Field(ge=1)] | None = Field(default=None, json_schema_extra=MACHINE)
    """CPU threads of the model; by default all cores"""
    maps: bool = False
    """also write predicted label maps, and pictures to look at"""


class ModelScoringOptions(ScoringOptions):
    """How a model bundle is scored. In fp32 the scores do not depend on the device."""

    tta: Symmetries = 1
    """test-time augmentation: the mean over 4 flips, or 8 flips and turns, of each window; 1 for none"""
    min_area: Amount = 0.0
    """regions smaller than this, in square micrometres, are merged into their surroundings"""
    precision: Precision = "fp32"
    """precision of the encoders: auto, fp32, bf16 or fp16"""
    batch: Annotated[int, Field(ge=1)] | None = Field(default=None, json_schema_extra=MACHINE)
    """windows a batch; by default chosen by the device"""


class PromptScoringOptions(ScoringOptions):
    """How vanilla SAM is scored, which is prompted with one dot in each instance."""

    drop_larger_than: Share | None = None
    """post-processing: drop masks over this share of the image (paper: 0.5)"""


class ExperimentOptions(Options):
    """The experiment on one data set."""

    source: Text
    """the folder of the download"""
    recipe: Text
    """the recipe of its trainings (YAML)"""
    pretrained: bool = True
    """begin with the weights `experiments.sam` and `experiments.pathology`"""
    pretraining: str | None = None
    """a recipe (YAML) for pretraining each model on synthetic glands; null does without"""
    rows: Several[Row] = _ALL_ROWS
    """rows of the paper's Table 1: vanilla, vanilla_pp, no_pathology, no_sam, sampath"""
    splits: Several[Literal["official", "disjoint", "authors"]] = ("official",)
    """ways to choose training and validation data: official, disjoint, authors"""
    folds: Annotated[int, Field(ge=2)] | None = 5
    """whole groups of the training data are dealt to so many folds, of which the first validates; or null"""
    val_share: Part | None = None
    """in place of folds, the share of the training data that validates, in whole groups; or null"""
    split_seed: Count = 0
    """the seed by which groups are dealt"""
    authors_folds: Text | None = None
    """the authors' folds, for the split `authors`: a CSV, its address, or `bcss` or `crag` to download it"""
    test_split: Text = "test"
    """the split that is tested"""
    tta: Symmetries = 1
    """test-time augmentation: the mean over 4 flips, or 8 flips and turns, of each window; 1 for none"""
    min_area: Amount = 0
    """trained rows are tested without regions smaller than this, in square micrometres"""
    tile_px: Count | None = None
    """side of the tiles that images are cut into, 0 for whole images, null for the data set's own"""


class BcssOptions(ExperimentOptions):
    """The experiment on BCSS, whose images have no instances to prompt."""

    source: Text = "data/raw/bcss"
    """the folder of the download"""
    recipe: Text = "config/experiments/bcss.yaml"
    """the recipe of its trainings (YAML)"""
    rows: Several[TrainedRow] = ("no_pathology", "no_sam", "sampath")
    """rows of the paper's Table 1: no_pathology, no_sam, sampath"""
    authors_folds: Text | None = "bcss"
    """the authors' folds, for the split `authors`: a CSV, its address, or `bcss` to download it"""


class CragOptions(ExperimentOptions):
    """The experiment on CRAG."""

    source: Text = "data/raw/crag"
    """the folder of the download"""
    recipe: Text = "config/experiments/crag.yaml"
    """the recipe of its trainings (YAML)"""
    authors_folds: Text | None = "crag"
    """the authors' folds, for the split `authors`: a CSV, its address, or `crag` to download it"""


class GlasOptions(ExperimentOptions):
    """The experiment on GlaS, of which the authors have no folds."""

    source: Text = "data/raw/glas"
    """the folder of the download"""
    recipe: Text = "config/experiments/glas.yaml"
    """the recipe of its trainings (YAML)"""
    pretrained: bool = False
    """begin with the weights `experiments.sam` and `experiments.pathology`"""
    pretraining: str | None = "config/experiments/glas-pretraining.yaml"
    """a recipe (YAML) for pretraining each model on synthetic glands; null does without"""
    splits: Several[Literal["official", "disjoint"]] = ("official", "disjoint")
    """ways to choose training and validation data: official, disjoint"""
    folds: Annotated[int, Field(ge=2)] | None = None
    """whole groups of the training data are dealt to so many folds, of which the first validates; or null"""
    val_share: Part | None = 0.1
    """in place of folds, the share of the training data that validates, in whole groups; or null"""
    split_seed: Count = 4
    """the seed by which groups are dealt"""
    test_split: Text = "testA"
    """the split that is tested"""
    tta: Symmetries = 8
    """test-time augmentation: the mean over 4 flips, or 8 flips and turns, of each window; 1 for none"""
    min_area: Amount = 600
    """trained rows are tested without regions smaller than this, in square micrometres"""


class ExperimentsOptions(Options):
    """The paper's experiments (targets experiment_bcss, experiment_crag, experiment_glas, sweep_bcss, ...)."""

    output: Text = "results/experiments"
    """the folder of data, trainings, tables and figures; `-smoke` is added in smoke runs"""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    devices: Annotated[int, Field(ge=1)] = Field(default=1, json_schema_extra=MACHINE)
    """number of GPUs of each training"""
    seeds: Several[Count] = (0,)
    """the seeds; every row is trained once with each"""
    sam: Text = "sam_vit_b"
    """SAM's weights: a file, or sam_vit_b, sam_vit_l or sam_vit_h to download them"""
    pathology: Text = "hipt_vit_small"
    """weights of the pathology encoder: a file, or hipt_vit_small to download them"""
    alpha: tuple[Share, ...] = (0, 0.125, 0.25, 0.5, 0.75, 1)
    """values of the sweep over alpha, the share of the focal loss (the paper's best: BCSS 0.25, CRAG 0.125)"""
    beta: tuple[Amount, ...] = (0, 0.0625, 0.125, 0.25, 0.5, 1)
    """values of the sweep over beta, the weight of the IoU loss (the paper's best: BCSS 0.0625, CRAG 0)"""
    bcss: BcssOptions = BcssOptions()
    """the experiment on BCSS"""
    crag: CragOptions = CragOptions()
    """the experiment on CRAG"""
    glas: GlasOptions = GlasOptions()
    """the experiment on GlaS"""
