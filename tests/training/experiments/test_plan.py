"""The plan of the experiments, from the configuration alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.options import load_config
from sampath_wsi.training.experiments.plan import Experiment, Run, plan_experiments
from sampath_wsi.training.scoring.paper import BEST_WEIGHTS, LABELS, printed
from tests.conftest import ROOT

WEIGHT = st.one_of(st.none(), st.floats(0, 3, allow_subnormal=False))


def plan(**changes: Any) -> dict[str, Experiment]:
    return plan_experiments(load_config({"slides": "x.tsv", **changes}))


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@given(st.sampled_from(sorted(LABELS)), st.one_of(st.none(), st.integers(0, 2**32 - 1)), WEIGHT, WEIGHT)
def test_a_name_says_which_run(row: str, seed: int | None, alpha: float | None, beta: float | None) -> None:
    run = Run(row, seed, alpha, beta)
    assert Run.parse(run.name) == run


@pytest.mark.parametrize("name", ["", "sampath0", "unet-seed0", "sampath-seed", "sampath-seed0-gamma1"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="no name of a run"):
        Run.parse(name)


def test_every_row_of_table_1_is_run_with_every_seed_and_split() -> None:
    crag = plan(experiments={"seeds": [0, 7], "crag": {"splits": ["official", "authors"]}})["crag"]
    found = [str(path.relative_to("results/experiments/crag")) for path in crag.table_scores]
    trained = [f"{row}-seed{seed}" for row in ("no_pathology", "no_sam", "sampath") for seed in (0, 7)]
    expected = [f"vanilla/{row}/scores.json" for row in ("vanilla", "vanilla_pp")]
    expected += [f"{split}/test/{run}/scores.json" for split in ("official", "authors") for run in trained]
    assert found == expected
    assert not any("vanilla" in str(path) for path in plan()["bcss"].table_scores)


@pytest.mark.parametrize("name", ["bcss", "crag"])
def test_sweeps_pass_through_the_recipe_with_the_papers_best(name: str) -> None:
    experiment = plan()[name]
    options = experiment.options("experiment sweep")
    alpha, beta = options["alpha"], options["beta"]
    assert (alpha, beta) == BEST_WEIGHTS[name]
    runs = [Run.parse(path.parent.name) for path in experiment.sweep_scores]
    assert len(runs) == len(set(runs)) == 11
    assert runs[0] == Run("sampath", 0)
    assert sorted([run.alpha for run in runs if run.alpha is not None] + [alpha]) == [0, 0.125, 0.25, 0.5, 0.75, 1]
    assert sorted([run.beta for run in runs if run.beta is not None] + [beta]) == [0, 0.0625, 0.125, 0.25, 0.5, 1]


def test_settings_of_a_training() -> None:
    bcss = plan()["bcss"]
    options = bcss.options("train", "no_sam-seed3-alpha0.75")
    assert {"seed=3", "architecture.sam=null", "loss.focal=0.75", "loss.dice=0.25"} <= set(options["set"])
    assert 'pretrained.sam="results/experiments/encoders/sam_vit_b.pth"' in options["set"]
    assert [str(p) for p in bcss.training_weights][1] == "results/experiments/encoders/hipt_vit_small.pth"
    assert plan(experiments={"sam": "my/sam.pth"})["bcss"].training_weights[0] == Path("my/sam.pth")


def test_models_for_glas_begin_with_synthetic_glands() -> None:
    glas = plan()["glas"]
    runs = ["sampath-seed0", "sampath-seed1", "no_sam-seed0"]
    cards = [glas.pretraining_cards(run)[0] for run in runs]
    assert len(set(cards)) == 3
    # Sweeps begin where the recipe's own run begins.
    assert glas.pretraining_cards("sampath-seed0-alpha0.5") == cards[:1]
    assert f'start_from="{cards[2].parent}"' in glas.options("train", runs[2])["set"]
    assert "architecture.sam=null" in glas.options("pretrain", runs[2])["set"]
    assert glas.training_weights == []
    assert glas.options("split", "disjoint") == {"folds": None, "val_share": 0.1, "seed": 4, "disjoint_from": "testA"}
    alone = plan(experiments={"glas": {"pretraining": "null"}})["glas"]
    assert alone.pretraining_cards(runs[0]) == []
    assert alone.card("official", runs[0]) != glas.card("official", runs[0])
    assert plan()["bcss"].pretraining_cards(runs[0]) == []


def test_settings_of_the_paper_rows_are_valid_recipes() -> None:
    from sampath_wsi.synthetic.stand_ins import TINY_HIPT, TINY_SAM
    from sampath_wsi.training.recipe import read_recipe

    for changes in ({}, {"smoke": True}):
        for name in ("bcss", "crag", "glas"):
            experiment = plan(**changes)[name]
            for row, parts in (("sampath", (True, True)), ("no_pathology", (True, False)), ("no_sam", (False, True))):
                run = Run(row, 5, beta=0.5)
                recipe = read_recipe(experiment.own.recipe, experiment.options("train", run.name)["set"])
                assert (recipe.architecture.sam is not None, recipe.architecture.pathology is not None) == parts
                assert (recipe.seed, recipe.loss.iou, recipe.name) == (5, 0.5, f"{name}-{run.name}")
                assert (recipe.epochs == 1) is bool(changes)
                if changes:
                    assert recipe.architecture.sam in (TINY_SAM, None)
                    assert recipe.architecture.pathology in (TINY_HIPT, None)


def test_only_what_changes_a_training_changes_its_folder(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("loss: {focal: 0.25}\n")

    def card(version: int = 1, device: str = "auto", **own: Any) -> Path:
        section = {"device": device, "crag": {"recipe": str(recipe), **own}}
        config = load_config({"slides": "x", "experiments": section})
        return plan_experiments(config, version)["crag"].card("official", "sampath-seed0")

    first = card()
    assert first.parts[-3].startswith("sampath-seed0.")
    others = [card(folds=4), card(tile_px=512), card(pretrained=False), card(source="elsewhere"), card(2)]
    recipe.write_text("# a comment\nloss:\n  focal: 0.25\n")
    assert card() == card(rows=["sampath"]) == card(tta=8) == card(device="cpu") == first
    recipe.write_text("loss: {focal: 0.5}\n")
    assert len({first, *others, card()}) == 7


def test_smoke_runs_keep_away_from_real_ones_and_from_gpus() -> None:
    for experiment in plan(smoke=True, experiments={"output": "out", "seeds": [0, 1, 2]}).values():
        assert experiment.folder.parent == Path("out-smoke")
        assert experiment.gpus == 0
        assert experiment.common.seeds == (0,)
        assert all(path.is_relative_to("out-smoke") for path in experiment.training_weights + experiment.made_sources)


def test_corrected_iou_of_crag() -> None:
    assert [printed(row, "crag").iou_corrected for row in ("sampath", "no_pathology", "no_sam")] == [
        0.7923,
        0.7262,
        0.6936,
    ]
    assert printed("vanilla", "bcss").dice is None
    assert printed("sampath", "bcss").iou_corrected is None
    assert printed("sampath", "glas").dice is None


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"crag": {"rows": ["unet"]}}, "experiments.crag.rows.0: 'unet' cannot be used: input should be 'vanilla'"),
        ({"glas": {"splits": ["authors"]}}, "experiments.glas.splits.0"),
        ({"seeds": []}, "experiments.seeds"),
        ({"alpha": [2]}, "experiments.alpha.0: 2 cannot be used: input should be less than"),
        ({"crags": {}}, "there is no key 'crags'; is 'crag' meant"),
    ],
)
def test_mistakes_are_named(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(experiments=section)


def test_text_of_the_command_line_becomes_numbers() -> None:
    crag = plan(
        experiments={
            "seeds": ["3", "4"],
            "devices": "2",
            "crag": {"tile_px": "null", "pretrained": "false", "tta": "8"},
        }
    )["crag"]
    assert (crag.common.seeds, crag.common.devices) == ((3, 4), 2)
    assert (crag.own.tile_px, crag.own.pretrained, crag.own.tta) == (None, False, 8)


def test_the_old_name_of_tta_counts() -> None:
    assert plan(experiments={"crag": {"flips": 4}})["crag"].own.tta == 4
