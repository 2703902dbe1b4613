"""Recipes: those of the paper, changes from the command line, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sampath_wsi.errors import ConfigError, ModelError
from sampath_wsi.model.zoo import TEMPLATES
from sampath_wsi.training.recipe import read_recipe, with_overrides
from tests.training.loop.runs import write_recipe

EXPERIMENTS = Path(__file__).resolve().parents[3] / "config" / "experiments"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_that_ship_are_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.description
    assert recipe.limitations


@pytest.mark.parametrize(
    ("name", "batch", "steps", "sizes", "schedule", "weights"),
    [
        ("bcss", 24, 72, (32, 1024), (1, (25, 29)), (0.25, 0.75, 0.0625)),
        ("crag", 6, 23, (60, 1536), (2, (50, 55)), (0.125, 0.875, 0.0)),
    ],
)
def test_the_papers_recipes(
    name: str, batch: int, steps: int, sizes: tuple[int, int], schedule: Any, weights: tuple[float, float, float]
) -> None:
    recipe = read_recipe(EXPERIMENTS / f"{name}.yaml")
    assert recipe.batch_size * recipe.accumulate == batch
    assert recipe.tiles_per_epoch == batch * steps
    assert (recipe.epochs, recipe.tile_px) == sizes
    assert recipe.freeze_encoders
    optimiser, loss = recipe.optimiser, recipe.loss
    assert (optimiser.learning_rate, optimiser.weight_decay, optimiser.gamma) == (1e-4, 1e-2, 0.1)
    assert (optimiser.warmup_epochs, optimiser.milestones) == schedule
    assert (loss.focal, loss.dice, loss.iou) == weights
    assert loss.reduction == "mean"
    card = TEMPLATES[f"sampath-{name}"]
    assert (recipe.architecture, recipe.mpp, recipe.overlap_px) == (card.architecture, card.mpp, card.overlap_px)
    for variant in ("no-sam", "no-pathology"):
        changed = read_recipe(EXPERIMENTS / f"{name}.yaml", [f"architecture=sampath-{name}-{variant}"])
        assert changed.architecture == TEMPLATES[f"sampath-{name}-{variant}"].architecture
    ablation = read_recipe(EXPERIMENTS / f"{name}.yaml", ["architecture.pathology=null"])
    assert ablation.architecture == TEMPLATES[f"sampath-{name}-no-pathology"].architecture


def test_keys_can_be_set(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    recipe = read_recipe(path, ["loss.focal=0.5", "optimiser.learning_rate=1e-4", "loss.reduction=sum", "seed=3"])
    assert (recipe.loss.focal, recipe.loss.dice, recipe.loss.reduction) == (0.5, 0.75, "sum")
    assert recipe.optimiser.learning_rate == 1e-4
    assert recipe.optimiser.schedule == "cosine"
    assert recipe.seed == 3
    assert read_recipe(path, ["augment.crop_scale=[0.5, 1]"]).augment.crop_scale == (0.5, 1)
    assert read_recipe(path, ["architecture.pathology=null"]).architecture.pathology is None


def test_overrides_leave_what_they_were_given() -> None:
    content = {"a": {"b": 1, "c": 2}}
    assert with_overrides(content, ["a.b=3", "d.e=x=y", "f="]) == {"a": {"b": 3, "c": 2}, "d": {"e": "x=y"}, "f": None}
    assert content == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.focl=1", r"recipe\.yaml \(with loss\.focl=1\): loss\.focl: Extra inputs are not permitted"),
        ("colour=red", "colour: Extra inputs are not permitted"),
        ("loss.focal", "'loss.focal' is not of the form key=value"),
        (".focal=1", "not of the form key=value"),
        ("seed.x=1", r"'seed\.x=1': seed is no mapping"),
        ("loss.focal=[1", "is not YAML"),
        ("loss.focal=-1", r"loss\.focal: Input should be greater than or equal to 0"),
        ("pretrained={sam: null}", None),
        ("precision=int8", "precision: Input should be"),
    ],
)
def test_overrides_that_make_no_sense_are_refused(override: str, message: str | None, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, seed=1)
    if message is None:
        assert read_recipe(path, [override]).pretrained is not None
        return
    with pytest.raises(ConfigError, match=message):
        read_recipe(path, [override])


def test_recipes_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"architecture\.decoder_dim: Input should be greater than 0"):
        read_recipe(write_recipe(tmp_path, architecture={"decoder_dim": 0}))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="not a multiple of validate_every"):
        read_recipe(write_recipe(tmp_path, validate_every=2))
    with pytest.raises(ConfigError, match="tile_px 72 is not a multiple of the 16 map pixels"):
        read_recipe(write_recipe(tmp_path, tile_px=72))
    with pytest.raises(ConfigError, match="overlap_px 6 is not a multiple of the output stride"):
        read_recipe(write_recipe(tmp_path, overlap_px=6))
    with pytest.raises(ConfigError, match="start_from and pretrained exclude each other"):
        read_recipe(write_recipe(tmp_path, start_from="demo", pretrained={"sam": "auto"}))
    with pytest.raises(ModelError, match="no model template 'sampath-x'"):
        read_recipe(write_recipe(tmp_path, architecture="sampath-x"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="not a mapping"):
        read_recipe(tmp_path / "list.yaml")
