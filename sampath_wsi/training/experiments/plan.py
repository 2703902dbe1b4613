"""What the experiments run: from the configuration to the options of every command. Pure, apart from reading a recipe.

Everything of an experiment lies in one folder::

    OUTPUT/bcss/data/                              prepared data
    OUTPUT/bcss/vanilla/ROW/scores.json            rows of Table 1 that are not trained
    OUTPUT/bcss/pretraining/RUN.DIGEST/model/      what trainings begin with, where they are pretrained here
    OUTPUT/bcss/SPLIT/splits.csv, leakage.json
    OUTPUT/bcss/SPLIT/runs/RUN.DIGEST/model/       trained models, see :class:`.runs.Run`
    OUTPUT/bcss/SPLIT/test/RUN/scores.json
    OUTPUT/bcss/report.md, sweep.png, ...          tables and figures

where SPLIT says how training and validation data are chosen: ``official`` (whole groups of the training split
validate), ``disjoint`` (the same, without the groups that the test split has too) or ``authors`` (the folds of the
paper's authors). DIGEST is one of everything that determines a training: where that changes, a new one is begun in
another folder, and none is overwritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sampath_wsi.training.experiments.runs import Run, plain_number
from sampath_wsi.training.experiments.smoke import SMOKE_IMAGE_PX, SMOKE_IMAGES, SMOKE_SETTINGS, smoke_config

Options = dict[str, Any]
_KINDS = ("sam", "pathology")
_WITHOUT: dict[str, list[str]] = {
    "no_pathology": ["architecture.pathology=null"],
    "no_sam": ["architecture.sam=null"],
    "sampath": [],
}


@dataclass(frozen=True)
class Experiment:
    """One data set's experiment.

    Parameters
    ----------
    name
        ``bcss``, ``crag`` or ``glas``.
    common, own
        The section ``experiments`` of the configuration, and its part about this data set.
    smoke
        Whether it runs on tiny stand-ins.
    train_version
        Another number makes all trainings anew.
    """

    name: str
    common: Mapping[str, Any]
    own: Mapping[str, Any]
    smoke: bool = False
    train_version: int = 1

    @property
    def folder(self) -> Path:
        """Where everything of it lies."""
        return Path(self.common["output"]) / self.name

    @property
    def gpus(self) -> int:
        """GPUs that a training takes."""
        return 0 if self.common["device"] == "cpu" else int(self.common["devices"])

    @property
    def threads(self) -> int:
        """CPU threads of trainings and tests; profiles can set others."""
        return 1 if self.smoke else 4

    @property
    def made_sources(self) -> list[Path]:
        """The raw data, where a rule makes them; ``prepare`` looks for real ones, and says how to get them."""
        return [Path(self.own["source"])] if self.smoke else []

    @property
    def table_scores(self) -> list[Path]:
        """Scores of every row of Table 1, with every split and seed."""
        rows = self.own["rows"]
        trained = [Run(row, seed) for row in rows if row in _WITHOUT for seed in self.common["seeds"]]
        vanilla = [self.folder / "vanilla" / row / "scores.json" for row in rows if row not in _WITHOUT]
        return vanilla + [self._scores(split, run) for split in self.own["splits"] for run in trained]

    @property
    def leakage_files(self) -> list[Path]:
        """What every way of splitting leaks."""
        return [self.folder / split / "leakage.json" for split in self.own["splits"]]

    @property
    def sweep_scores(self) -> list[Path]:
        """Scores of Figure 4: the recipe's own weights, and each other alpha and beta; first seed and split."""
        seed, split = self.common["seeds"][0], self.own["splits"][0]
        alpha, beta = self._own_weights
        runs = [Run("sampath", seed)]
        runs += [Run("sampath", seed, alpha=value) for value in self.common["alpha"] if value != alpha]
        runs += [Run("sampath", seed, beta=value) for value in self.common["beta"] if value != beta]
        return [self._scores(split, run) for run in runs]

    def _scores(self, split: str, run: Run) -> Path:
        return self.folder / split / "test" / run.name / "scores.json"

    def card(self, split: str, run: Run) -> Path:
        """The card of a trained model, in the folder of its run."""
        settled = [self.split_options(split), self.prepare_options, self.own["source"]]
        digest = self._digest(self._recipe, self.train_options(run)["set"], *settled)
        return self.folder / split / "runs" / f"{run.name}.{digest}" / "model" / "card.json"

    def pretraining_cards(self, run: Run) -> list[Path]:
        """The card of the model that a training begins with, if it is pretrained here."""
        if self.own["pretraining"] is None:
            return []
        run, recipe = Run(run.row, run.seed), _read_yaml(self.own["pretraining"])
        digest = self._digest(recipe, self.pretraining_options(run)["set"], self.synthetic_options)
        return [self.folder / "pretraining" / f"{run.name}.{digest}" / "model" / "card.json"]

    def _digest(self, *settled: Any) -> str:
        """Of everything that determines a training."""
        text = json.dumps([*settled, self.train_version], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        return _read_yaml(self.own["recipe"])

    @property
    def _own_weights(self) -> tuple[float, float]:
        """The recipe's alpha and beta."""
        loss = self._recipe.get("loss", {})
        return float(loss.get("focal", 0.25)), float(loss.get("iou", 0.0625))

    def weights(self, *kinds: str) -> list[Path]:
        """Files of encoder weights (``sam``, ``pathology``); those named like public ones are fetched to one place."""
        paths = [Path(self.common[kind]) for kind in kinds]
        return [path if path.suffix else self.folder.parent / "encoders" / f"{path}.pth" for path in paths]

    @property
    def training_weights(self) -> list[Path]:
        """Weights that a training begins with."""
        return self.weights(*_KINDS) if self.own["pretrained"] else []

    @property
    def prepare_options(self) -> Options:
        """Options of ``prepare bcss`` and so on."""
        return {"tile_px": self.own["tile_px"]}

    def split_options(self, split: str) -> Options:
        """Options of ``prepare split``."""
        if split == "authors":
            return {"authors": self.own["authors_folds"]}
        disjoint_from = self.own["test_split"] if split == "disjoint" else None
        dealt = {name: self.own[name] for name in ("folds", "val_share")}
        return {**dealt, "seed": self.own["split_seed"], "disjoint_from": disjoint_from}

    def train_options(self, run: Run) -> Options:
        """Options of ``train``."""
        settings = self._settings(self.name, run)
        if self.own["pretrained"]:
            files = zip(_KINDS, self.training_weights, strict=True)
            settings += [f"pretrained.{kind}={json.dumps(str(path))}" for kind, path in files]
        settings += [f"start_from={json.dumps(str(card.parent))}" for card in self.pretraining_cards(run)]
        if run.alpha is not None:
            settings += [f"loss.focal={plain_number(run.alpha)}", f"loss.dice={plain_number(round(1 - run.alpha, 9))}"]
        if run.beta is not None:
            settings += [f"loss.iou={plain_number(run.beta)}"]
        return self._device_options | {"set": settings}

    def pretraining_options(self, run: Run) -> Options:
        """Options of ``train`` for the model that a training begins with."""
        return self._device_options | {"set": self._settings(f"{self.name}-pretraining", run)}

    def _settings(self, name: str, run: Run) -> list[str]:
        return [
            f"name={name}-{run.name}",
            f"seed={run.seed}",
            *(SMOKE_SETTINGS if self.smoke else []),
            *_WITHOUT[run.row],
        ]

    @property
    def _device_options(self) -> Options:
        return {"device": self.common["device"], "devices": self.common["devices"]}

    @property
    def synthetic_options(self) -> Options:
        """Options of ``prepare synthetic-glands``."""
        return {"images": SMOKE_IMAGES, "val_images": 2} if self.smoke else {}

    @property
    def test_options(self) -> Options:
        """Options of ``test``."""
        return self._scoring_options | {"flips": self.own["flips"], "min_area": self.own["min_area"]}

    def vanilla_options(self, row: str) -> Options:
        """Options of ``test-dots``."""
        return self._scoring_options | ({"drop_larger_than": 0.5} if row == "vanilla_pp" else {})

    @property
    def _scoring_options(self) -> Options:
        return {"split": self.own["test_split"], "device": self.common["device"]}

    @property
    def sweep_options(self) -> Options:
        """Options of ``experiment sweep``."""
        alpha, beta = self._own_weights
        return {"alpha": alpha, "beta": beta}

    @property
    def stand_in_options(self) -> Options:
        """Options of ``demo-data``."""
        return {"images": SMOKE_IMAGES, "size": SMOKE_IMAGE_PX}


def plan_experiments(config: Mapping[str, Any], train_version: int = 1) -> dict[str, Experiment]:
    """The experiments of a checked configuration (:func:`sampath_wsi.runs.config.load_config`), by data set."""
    smoke = bool(config["smoke"])
    section = smoke_config(config["experiments"]) if smoke else config["experiments"]
    data_sets = {name: value for name, value in section.items() if isinstance(value, Mapping)}
    return {name: Experiment(name, section, own, smoke, train_version) for name, own in data_sets.items()}


def _read_yaml(path: str) -> dict[str, Any]:
    """What a recipe says; nothing where it cannot be read, of which ``train`` will complain."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
