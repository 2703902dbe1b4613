"""The plan of the experiments: from the configuration to the options of every command. Pure, but for reading a recipe.

Everything of an experiment lies in one folder::

    OUTPUT/bcss/data/                              prepared data
    OUTPUT/bcss/vanilla/ROW/scores.json            rows of Table 1 that are not trained
    OUTPUT/bcss/pretraining/RUN.DIGEST/model/      the models that trainings begin with, if they are pretrained here
    OUTPUT/bcss/SPLIT/splits.csv, leakage.json
    OUTPUT/bcss/SPLIT/runs/RUN.DIGEST/model/       trained models, see :class:`Run`
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
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sampath_wsi.errors import DataError
from sampath_wsi.options import Config, ExperimentOptions, ExperimentsOptions
from sampath_wsi.training.scoring.paper import LABELS, TITLES, VANILLA_ROWS

SPLITS = ("official", "disjoint", "authors")
"""Ways of choosing training and validation data."""
_NAME = re.compile(r"(?P<row>[a-z_]+)(-seed(?P<seed>\d+))?(-alpha(?P<alpha>[\d.]+))?(-beta(?P<beta>[\d.]+))?")
_KINDS = ("sam", "pathology")
_WITHOUT: dict[str, list[str]] = {
    "no_pathology": ["architecture.pathology=null"],
    "no_sam": ["architecture.sam=null"],
    "sampath": [],
}

_SMOKE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("smoke.yaml").read_text(encoding="utf-8"))
"""Keys of the configuration that a smoke run sets to other values."""


@dataclass(frozen=True)
class Run:
    """One model of an experiment, with a name such as ``sampath-seed0`` or ``sampath-seed0-alpha0.5``.

    Parameters
    ----------
    row
        A row of Table 1, see :data:`sampath_wsi.training.scoring.paper.LABELS`.
    seed
        Of the training; None for rows that are not trained.
    alpha, beta
        Weights of the loss (focal against Dice; IoU), where they are not the recipe's own.
    """

    row: str
    seed: int | None = None
    alpha: float | None = None
    beta: float | None = None

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        parts = {"seed": self.seed, "alpha": self.alpha, "beta": self.beta}
        return self.row + "".join(f"-{key}{_plain(value)}" for key, value in parts.items() if value is not None)

    @property
    def prompted(self) -> bool:
        """Whether the run is of vanilla SAM, which is prompted with one dot in each gland."""
        return self.row in VANILLA_ROWS

    @classmethod
    def parse(cls, name: str) -> Run:
        """Return the run of a name.

        Raises
        ------
        DataError
            If it is no name of a run.
        """
        found = _NAME.fullmatch(name)
        if found is None or found["row"] not in LABELS:
            raise DataError(f"{name!r} is no name of a run", f"It begins with one of {', '.join(LABELS)}.")
        seed, alpha, beta = (None if found[key] is None else float(found[key]) for key in ("seed", "alpha", "beta"))
        return cls(found["row"], None if seed is None else int(seed), alpha, beta)


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
    common: ExperimentsOptions
    own: ExperimentOptions
    smoke: bool = False
    train_version: int = 1

    @property
    def folder(self) -> Path:
        """The folder of all files of the experiment."""
        return Path(self.common.output) / self.name

    @property
    def gpus(self) -> int:
        """Number of GPUs of a training."""
        return 0 if self.common.device == "cpu" else self.common.devices

    @property
    def device_flags(self) -> dict[str, object]:
        """Options of a training that do not change its result."""
        return {"device": self.common.device, "devices": self.common.devices}

    @property
    def threads(self) -> int:
        """CPU threads of trainings and tests; profiles can set others."""
        return 1 if self.smoke else 4

    @property
    def made_sources(self) -> list[Path]:
        """The raw data, where a rule makes them; ``prepare`` looks for real ones, and says how to get them."""
        return [Path(self.own.source)] if self.smoke else []

    @property
    def table_scores(self) -> list[Path]:
        """Scores of every row of Table 1, with every split and seed."""
        rows = self.own.rows
        trained = [Run(row, seed) for row in rows if row in _WITHOUT for seed in self.common.seeds]
        vanilla = [self.folder / "vanilla" / row / "scores.json" for row in rows if row not in _WITHOUT]
        return vanilla + [self._scores(split, run) for split in self.own.splits for run in trained]

    @property
    def leakage_files(self) -> list[Path]:
        """Leakage reports, one for each way of splitting."""
        return [self.folder / split / "leakage.json" for split in self.own.splits]

    @property
    def sweep_scores(self) -> list[Path]:
        """Scores of Figure 4: the recipe's own weights, and each other alpha and beta; first seed and split."""
        seed, (alpha, beta) = self.common.seeds[0], self._own_weights
        runs = [Run("sampath", seed)]
        runs += [Run("sampath", seed, alpha=value) for value in self.common.alpha if value != alpha]
        runs += [Run("sampath", seed, beta=value) for value in self.common.beta if value != beta]
        return [self._scores(self.own.splits[0], run) for run in runs]

    def _scores(self, split: str, run: Run) -> Path:
        return self.folder / split / "test" / run.name / "scores.json"

    def card(self, split: str, run: str) -> Path:
        """Return the card of a trained model, in the folder of its run."""
        settled = [self.options("split", split), self.options("prepare"), self.own.source]
        digest = self._digest(self._recipe, self.options("train", run)["set"], *settled)
        return self.folder / split / "runs" / f"{run}.{digest}" / "model" / "card.json"

    def pretraining_cards(self, run: str) -> list[Path]:
        """Return the card of the model that a training begins with, if it is pretrained here."""
        if self.own.pretraining is None:
            return []
        first = Run.parse(run)
        first, recipe = Run(first.row, first.seed), _read_yaml(self.own.pretraining)
        settled = self.options("pretrain", first.name)["set"], self.options("synthetic-glands")
        digest = self._digest(recipe, *settled)
        return [self.folder / "pretraining" / f"{first.name}.{digest}" / "model" / "card.json"]

    def _digest(self, *settled: object) -> str:
        """Return a digest of everything that determines a training."""
        text = json.dumps([*settled, self.train_version], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        return _read_yaml(self.own.recipe)

    @property
    def _own_weights(self) -> tuple[float, float]:
        """Return the recipe's alpha and beta."""
        loss = self._recipe.get("loss", {})
        return float(loss.get("focal", 0.25)), float(loss.get("iou", 0.0625))

    def weights(self, *kinds: str) -> list[Path]:
        """Return files of encoder weights (``sam``, ``pathology``); those of public names are fetched to one place."""
        paths = [Path(getattr(self.common, kind)) for kind in kinds]
        return [path if path.suffix else self.folder.parent / "encoders" / f"{path}.pth" for path in paths]

    @property
    def training_weights(self) -> list[Path]:
        """Return the weights that a training begins with."""
        return self.weights(*_KINDS) if self.own.pretrained else []

    def options(self, command: str, of: str = "") -> dict[str, object]:
        """Return the options of a command that decide about its result; a dictionary of flags and values.

        ``pretrain`` is ``train`` for the model that a training begins with.

        Parameters
        ----------
        of
            Name of the run that is trained, way of splitting, or row of Table 1, where the options depend on it.
        """
        own, smoke = self.own, self.smoke or None
        match command:
            case "demo-data":
                return dict(_SMOKE["stand_in"])
            case "prepare":
                return {"tile_px": own.tile_px}
            case "synthetic-glands":
                return dict(_SMOKE["synthetic"]) if smoke else {}
            case "split" if of == "authors":
                return {"authors": own.authors_folds}
            case "split":
                dealt = {"folds": own.folds, "val_share": own.val_share, "seed": own.split_seed}
                return dealt | {"disjoint_from": own.test_split if of == "disjoint" else None}
            case "pretrain" | "train":
                return {"set": self._settings(Run.parse(of), pretraining=command == "pretrain")}
            case "test":
                return {"split": own.test_split, "tta": own.tta, "min_area": own.min_area}
            case "test-prompts":
                return {"split": own.test_split, "drop_larger_than": 0.5 if of == "vanilla_pp" else None}
            case "experiment report":
                return {"leakage": self.leakage_files, "smoke": smoke}
            case "experiment sweep":
                return dict(zip(("alpha", "beta"), self._own_weights, strict=True)) | {"smoke": smoke}
        raise ValueError(command)

    def _settings(self, run: Run, *, pretraining: bool) -> list[str]:
        """Return the settings in which a training differs from its recipe."""
        name = f"{self.name}-pretraining" if pretraining else self.name
        settings = [f"name={name}-{run.name}", f"seed={run.seed}"]
        settings += [*(_SMOKE["recipe"] if self.smoke else []), *_WITHOUT[run.row]]
        if pretraining:
            return settings
        files = zip(_KINDS, self.training_weights, strict=False)  # none or both
        settings += [f"pretrained.{kind}={json.dumps(str(path))}" for kind, path in files]
        settings += [f"start_from={json.dumps(str(card.parent))}" for card in self.pretraining_cards(run.name)]
        if run.alpha is not None:
            settings += [f"loss.focal={_plain(run.alpha)}", f"loss.dice={_plain(round(1 - run.alpha, 9))}"]
        return settings if run.beta is None else [*settings, f"loss.iou={_plain(run.beta)}"]


def plan_experiments(config: Config, train_version: int = 1) -> dict[str, Experiment]:
    """Return the experiments of a configuration, by data set."""
    section = config.experiments
    if config.smoke:
        output, given = f"{section.output}-smoke", section.model_dump()
        weights = {"sam": f"{output}/encoders/tiny-sam.pth", "pathology": f"{output}/encoders/tiny-hipt.pth"}
        for name in TITLES:
            given[name] |= {"source": f"{output}/raw/{name}", **_SMOKE["data_sets"][name]}
        section = ExperimentsOptions.of({**given, **weights, "output": output, **_SMOKE["common"]}, "smoke run")
    return {name: Experiment(name, section, getattr(section, name), config.smoke, train_version) for name in TITLES}


def _plain(value: float) -> str:
    """Return a number as text without an exponent and trailing zeros."""
    return np.format_float_positional(value, trim="-")


def _read_yaml(path: str) -> dict[str, Any]:
    """Return the content of a recipe; empty if it cannot be read (``train`` reports that)."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
