"""A training run: its recipe, its options, and the files of its folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sampath_wsi.errors import ConfigError, DataError, ModelError
from sampath_wsi.files import write_json, written_aside
from sampath_wsi.model.checkpoints import read_checkpoint
from sampath_wsi.stages import VERSIONS
from sampath_wsi.training import require_extra
from sampath_wsi.training.data.leakage import find_leakage
from sampath_wsi.training.data.prepared import PreparedData, read_prepared
from sampath_wsi.training.recipe import read_recipe
from sampath_wsi.training.tiles import TrainingTiles

_IN_LAST = ("weights", "optimiser", "scaler", "state")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """Options of the computation, which change the result by no more than rounding.

    Attributes
    ----------
    device, devices
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``, and how many. Several devices are a process each.
    threads
        Threads of torch on the CPU; as many as torch likes if not given.
    workers
        Processes that read and augment tiles for each device; by default none on a CPU, some beside a GPU.
    checkpoint_minutes
        Time between checkpoints within an epoch; 0 writes one after every optimiser step.
    """

    device: str = "auto"
    devices: int = 1
    threads: int | None = None
    workers: int | None = None
    checkpoint_minutes: float = 10.0


class Run:
    """A run that has been checked: recipe, data, options and folder fit each other. Nothing is written yet.

    Parameters
    ----------
    recipe
        YAML of a :class:`sampath_wsi.training.recipe.Recipe`.
    data
        Prepared data (:mod:`sampath_wsi.training.data.prepared`).
    out
        The folder of the run.
    splits
        CSV with the columns sample and split, instead of the data's own split.
    overrides
        Keys of the recipe to set otherwise, such as ``loss.focal=0.5``.
    resume
        Go on after ``last`` if it is there.

    Attributes
    ----------
    batches, val_tiles
        Of an epoch, and of its validation.
    checkpoint
        The checkpoint to resume from; None for a new run, or one that stopped before its first checkpoint.
    last, best
        The checkpoint to go on from; weights and scores of the best epoch.
    table, tensorboard, model
        A row an epoch; TensorBoard's log; the bundle.

    Raises
    ------
    ConfigError
        If the recipe is wrong; if ``out`` holds a run of another recipe or other data, or one and ``resume`` is not
        set; or if packages are missing that only a training needs.
    DataError
        If the data are not as they should be.
    """

    def __init__(
        self,
        recipe: str | Path,
        data: str | Path,
        out: str | Path,
        *,
        splits: str | Path | None = None,
        overrides: Sequence[str] = (),
        resume: bool = False,
        options: RunOptions | None = None,
    ) -> None:
        require_extra()
        self.recipe, self.data = read_recipe(recipe, overrides), read_prepared(data, splits)
        self.options, self.out = options or RunOptions(), Path(out)
        self.last, self.best = (self.out / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
        self.table, self.tensorboard = self.out / "metrics.csv", self.out / "tensorboard"
        self.model, self._described = self.out / "model", self.out / "run.json"
        self.classes = tuple(entry.name for entry in self.data.info.classes)
        if abs(self.data.info.mpp - self.recipe.mpp) > 1e-6 * self.recipe.mpp:
            raise DataError(
                f"{self.data.folder} has {self.data.info.mpp} um/px, the recipe {self.recipe.name} wants "
                f"{self.recipe.mpp}",
                "Prepare the data at the recipe's resolution.",
            )
        tiles = self.tiles()
        self.batches, self.val_tiles = tiles.batches, tiles.val_tiles
        splits_of = {name: self.data.split(name) for name in (self.recipe.train_split, self.recipe.val_split)}
        leakage = find_leakage(splits_of, self.data.sizes_px)
        if leakage.leaks:
            log.warning("%s: the scores of the validation will be too good", leakage.summary)
        self.checkpoint = self._find_checkpoint(resume)

    def tiles(self, rank: int = 0, device: str = "cpu") -> TrainingTiles:
        """Choose the tiles of one of the processes, which computes on this kind of device.

        Raises
        ------
        ConfigError, DataError
            If batches or tiles cannot be divided among the processes.
        """
        # A CPU has no time to wait for other processes.
        workers = 0 if self.options.workers is None and device == "cpu" else self.options.workers
        return TrainingTiles(self.recipe, self.data, rank, self.options.devices, workers)

    def claim(self) -> None:
        """Write the run's description into ``run.json``, which claims the folder."""
        write_json(self._described, self._description)
        for leftover in self.last.parent.glob(".partial.*"):
            leftover.unlink()

    @property
    def _description(self) -> dict[str, object]:
        splits = "".join(f"{sample.sample},{sample.split}\n" for sample in self.data.samples)
        samples = {
            "samples": len(self.data.samples),
            "splits_sha256": hashlib.sha256(splits.encode()).hexdigest(),
            "content_sha256": _content_of(self.data),
        }
        data = self.data.info.model_dump(mode="json") | samples
        return {"recipe": self.recipe.model_dump(mode="json"), "data": data, "versions": {"train": VERSIONS["train"]}}

    def _find_checkpoint(self, resume: bool) -> Path | None:
        if not self.last.exists():
            return None
        if not resume:
            raise ConfigError(f"{self.out} already holds a run", "Go on with it (--resume), or name another folder.")
        if (made_by := _version_of(self._described)) != VERSIONS["train"]:
            what = f"version {made_by} of the training began it, this program has version {VERSIONS['train']}"
            log.info("%s: begun anew, since %s", self.out, what)
            return None
        if difference := _difference(self._described, self._description):
            raise ConfigError(
                f"the run in {self.out} has another recipe or other data ({difference})",
                "Name another folder, or delete this one to begin anew.",
            )
        return self.last


def write_checkpoint(path: Path, record: Mapping[str, object]) -> None:
    """Write a checkpoint beside ``path`` and rename it, so that there is always a whole one.

    Raises
    ------
    OSError
        Among others where the disk is full.
    """
    with written_aside(path) as aside:
        try:
            with aside.open("wb") as file:
                torch.save(record, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            # torch's writer does not name the file, and raises an error that hides the cause in its context.
            reason = error if isinstance(error, OSError) else error.__context__
            if not isinstance(reason, OSError):
                raise
            raise OSError(reason.errno, reason.strerror, str(path)) from error


def read_last(path: Path) -> dict[str, Any]:
    """Read the checkpoint to resume from, onto the CPU; no code in it is run.

    Raises
    ------
    ModelError
        If it is damaged, or none of a training run, or of a version that trained in another way.
    """
    remedy = "Delete it to begin the run anew, or put a copy in its place."
    try:
        record = read_checkpoint(path)
    except ModelError as error:
        raise ModelError(f"{path}: the checkpoint is damaged", remedy) from error
    if isinstance(record, dict) and "pytorch-lightning_version" in record:
        raise ModelError(
            f"{path}: the checkpoint was written by a version that trained with Lightning",
            "Finish the run with that version, or delete the checkpoint to begin the run anew.",
        )
    if not isinstance(record, dict) or not all(key in record for key in _IN_LAST):
        raise ModelError(f"{path}: not a checkpoint that a training run can go on from", remedy)
    return record


def _content_of(data: PreparedData) -> str:
    """Return a digest of all labels, which people correct, and of the sizes of the images, which are compressed."""
    digest = hashlib.sha256()
    for sample in data.samples:
        digest.update(f"{sample.sample} {(data.folder / sample.image).stat().st_size} ".encode())
        digest.update((data.folder / sample.label).read_bytes())
    return digest.hexdigest()


def _version_of(described: Path) -> int:
    """Return the version of the training that a run's description names; 0.1 named none."""
    try:
        versions = json.loads(described.read_text(encoding="utf-8")).get("versions", {})
    except FileNotFoundError:
        return VERSIONS["train"]
    return int(versions.get("train", 1))


def _difference(described: Path, run: dict[str, Any]) -> str:
    """Return the first key in which a run's description differs from the wanted one; empty if none does."""
    if not described.exists():
        return f"{described.name} is missing"
    found = json.loads(described.read_text(encoding="utf-8"))
    return next(
        (
            f"{part}.{key}"
            for part in ("recipe", "data")
            for key in run[part] | found.get(part, {})
            if run[part].get(key) != found.get(part, {}).get(key)
        ),
        "",
    )
