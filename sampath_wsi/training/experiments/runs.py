"""Names of runs: which row of Table 1, which seed, and which weight of the loss a sweep gave it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sampath_wsi.errors import DataError
from sampath_wsi.training.experiments.paper import LABELS, VANILLA_ROWS

SPLITS = ("official", "disjoint", "authors")
"""Ways of choosing training and validation data, see :mod:`sampath_wsi.training.experiments.plan`."""
_NAME = re.compile(r"(?P<row>[a-z_]+)(-seed(?P<seed>\d+))?(-alpha(?P<alpha>[\d.]+))?(-beta(?P<beta>[\d.]+))?")


@dataclass(frozen=True)
class Run:
    """One model of an experiment, with a name such as ``sampath-seed0`` or ``sampath-seed0-alpha0.5``.

    Parameters
    ----------
    row
        A row of Table 1, see :data:`sampath_wsi.training.experiments.paper.LABELS`.
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
        """The name of its folder."""
        parts = {"seed": self.seed, "alpha": self.alpha, "beta": self.beta}
        return self.row + "".join(f"-{key}{plain_number(value)}" for key, value in parts.items() if value is not None)

    @property
    def prompted(self) -> bool:
        """Whether it is vanilla SAM, which is shown one dot a gland."""
        return self.row in VANILLA_ROWS

    @classmethod
    def parse(cls, name: str) -> Run:
        """The run of a name.

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


def plain_number(value: float) -> str:
    """A number as people write it: no exponent, no idle zeros."""
    return np.format_float_positional(value, trim="-")


@dataclass(frozen=True)
class Result:
    """A tested run."""

    run: Run
    split: str
    """How training and validation data were chosen; empty for a run that was not trained."""
    scores: dict[str, Any]
    """What ``scores.json`` says (:mod:`sampath_wsi.training.scoring.score_files`)."""

    def score(self, name: str) -> dict[str, float | None]:
        """A score with its interval: ``value``, ``low``, ``high``; None where it is not defined."""
        entry: dict[str, float | None] = self.scores["scores"].get(name, {})
        return {key: entry.get(key) for key in ("value", "low", "high")}


def read_results(paths: Iterable[Path]) -> tuple[Result, ...]:
    """Read the scores of runs that lie where the workflow puts them.

    Parameters
    ----------
    paths
        Files ``SPLIT/test/RUN/scores.json``, or ``vanilla/RUN/scores.json`` of runs that were not trained.

    Returns
    -------
    The results in the order of Table 1.

    Raises
    ------
    DataError
        If there is no file, or one is missing, is not one of scores, or its folders are not named like a run and a way
        of splitting.
    """
    results = []
    for path in paths:
        run = Run.parse(path.parent.name)
        scores = read_json(path, "Run the test again.")
        missing = {"scores", "as_in_the_paper", "seconds_per_image", "fields"} - scores.keys()
        if missing:
            raise DataError(f"{path} does not say {min(missing)}", "Run the test again.")
        split = "" if run.prompted else path.absolute().parents[2].name
        if split and split not in SPLITS:
            raise DataError(f"{path}: {split!r} is no way of splitting", f"Known are {', '.join(SPLITS)}.")
        results.append(Result(run, split, scores))
    if not results:
        raise DataError("there are no scores to report", "Name the scores.json of at least one run.")
    rows, splits = list(LABELS), ["", *SPLITS]
    return tuple(sorted(results, key=lambda r: (rows.index(r.run.row), splits.index(r.split), r.run.seed or 0)))


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    DataError
        If it cannot be read; with the remedy.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__})", remedy) from error
    return found
