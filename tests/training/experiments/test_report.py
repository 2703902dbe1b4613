"""Tables and figures from scores written by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampath_wsi.errors import DataError
from sampath_wsi.metrics import ConfusionMatrix
from sampath_wsi.training.experiments.report import write_report, write_sweep
from sampath_wsi.training.experiments.tables import read_results
from sampath_wsi.training.scoring.paper import as_in_the_paper
from sampath_wsi.training.scoring.scores import Scores, Seconds, scores_of

GLANDS = ("Background", "Gland")
TISSUES = ("Tumor", "Stroma", "Inflammatory", "Necrosis", "Other")


def write_scores(path: Path, classes: tuple[str, ...], right: float, fields: int = 6) -> Path:
    """Scores of a model of which a share of all pixels is right, the same in every class up to noise."""
    rng = np.random.default_rng(len(str(path)))
    n = len(classes)
    counts = rng.integers(80, 120, (fields, n, n + 1)) * (1 - right)
    counts[:, np.arange(n), np.arange(n) + 1] = 100 * n * right * rng.uniform(0.9, 1.1, (fields, n))
    names = tuple(f"f{k}" for k in range(fields))
    counts = counts.astype(np.int64)
    total = ConfusionMatrix(counts.sum(0))
    scores = Scores(
        model="m",
        weights_sha256="0",
        data="d",
        split="test",
        splits_file=None,
        fields=fields,
        groups=fields,
        classes=list(classes),
        confusion=total.counts.tolist(),
        scores=scores_of(counts, names, classes),
        bootstrap={},
        as_in_the_paper=as_in_the_paper(total, prompted=path.parents[1].name == "vanilla"),
        seconds_per_image=Seconds(mean=0.6, model=0.5),
        device="a | device",
        leakage={"severity": "leak", "summary": "LEAKAGE", "samples": {"train": 5, "test": 3 * fields}},
        options={},
        software={},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(scores.model_dump_json())
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def crag(folder: Path) -> list[Path]:
    paths = [write_scores(folder / "vanilla" / row / "scores.json", GLANDS, 0.6) for row in ("vanilla_pp", "vanilla")]
    for split in ("official", "authors"):
        for row, right in (("sampath", 0.9), ("no_sam", 0.8)):
            for seed in (0, 1):
                path = folder / split / "test" / f"{row}-seed{seed}" / "scores.json"
                paths.append(write_scores(path, GLANDS, right + 0.01 * seed))
    return paths


def leakage(folder: Path, *splits: str) -> list[Path]:
    paths = [folder / split / "leakage.json" for split in splits]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"summary": f"what {path.parent.name} leaks"}))
    return paths


def test_report_of_glands(tmp_path: Path) -> None:
    paths = crag(tmp_path)
    out = tmp_path / "out"
    write_report("crag", paths, leakage(tmp_path, "official", "authors"), out)
    rows = rows_of(out / "table1.csv")
    assert [row["row"] for row in rows] == ["vanilla", "vanilla_pp"] + ["no_sam"] * 4 + ["sampath"] * 4
    for row in rows:
        for name in ("dice", "iou", "accuracy"):
            assert float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"])
        assert row["paper_dice"] == row["dice"]
        # What the paper calls IoU is that in vanilla rows, and the recall in trained ones.
        same = float(row["paper_iou"]) == pytest.approx(float(row["iou"]))
        assert same is row["row"].startswith("vanilla")
    by_class = {(row["row"], row["split"], row["seed"], row["class"]): row for row in rows_of(out / "classes.csv")}
    for row in rows[2:]:
        assert row["paper_iou"] == by_class[row["row"], row["split"], row["seed"], "Gland"]["recall"]
    assert (rows[-1]["printed_dice"], rows[-1]["printed_iou"], rows[-1]["printed_iou_corrected"]) == (
        "0.8841",
        "0.8831",
        "0.7923",
    )
    times = rows_of(out / "times.csv")
    assert times[0]["printed_s"] == "0.38"
    # Three samples a field.
    assert float(times[0]["model_s"]) == pytest.approx(0.5 / 3)

    text = (out / "report.md").read_text()
    assert text.index("split `official`") < text.index("split `authors`")
    assert "what official leaks" in text
    assert "what authors leaks" in text
    assert text.count("(mean and standard deviation over 2 seeds)") == 4
    assert r"a \| device" in text
    assert "mean nothing" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {11, 8, 7}


def test_report_of_tissues_has_accuracy_as_the_papers_dice(tmp_path: Path) -> None:
    paths = [
        write_scores(tmp_path / "official" / "test" / f"{row}-seed0" / "scores.json", TISSUES, right)
        for row, right in (("no_pathology", 0.7), ("sampath", 0.8))
    ]
    write_report("bcss", paths, leakage(tmp_path, "official"), tmp_path, smoke=True)
    for row in rows_of(tmp_path / "table1.csv"):
        assert row["scope"] == "macro"
        assert row["paper_dice"] == row["accuracy"]
        assert row["printed_iou_corrected"] == ""
    assert len(rows_of(tmp_path / "classes.csv")) == 10
    assert "these numbers mean nothing" in (tmp_path / "report.md").read_text()


def test_sweep_has_the_recipes_run_in_both_curves(tmp_path: Path) -> None:
    names = ("sampath-seed0", "sampath-seed0-alpha0.5", "sampath-seed0-alpha0", "sampath-seed0-beta0.0625")
    paths = [write_scores(tmp_path / "official" / "test" / name / "scores.json", GLANDS, 0.8) for name in names]
    write_sweep("crag", paths, (0.125, 0.0), tmp_path)
    rows = rows_of(tmp_path / "sweep.csv")
    assert [(row["parameter"], float(row["value"])) for row in rows] == [
        ("alpha", 0),
        ("alpha", 0.125),
        ("alpha", 0.5),
        ("beta", 0),
        ("beta", 0.0625),
    ]
    assert rows[1]["dice"] == rows[3]["dice"]
    assert "Best in the paper: alpha 0.125, beta 0." in (tmp_path / "sweep.md").read_text()


def test_figures_are_pictures_and_the_same_every_time(tmp_path: Path) -> None:
    paths = crag(tmp_path)
    for name in ("a", "b"):
        write_report("crag", paths, [], tmp_path / name)
        write_sweep("crag", paths[-1:], (0.125, 0.0), tmp_path / name)
    for figure in ("table1", "sweep"):
        with Image.open(tmp_path / "a" / f"{figure}.png") as picture:
            assert min(picture.size) > 500
            assert len(picture.convert("RGB").getcolors(2**24)) > 20
        for suffix in (".png", ".svg"):
            first, second = ((tmp_path / name / f"{figure}{suffix}").read_bytes() for name in ("a", "b"))
            assert first == second
        text = (tmp_path / "a" / f"{figure}.svg").read_text()
        assert "95 % intervals" in text
    assert not list(tmp_path.rglob(".partial*"))


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("official/test/unet-seed0/scores.json", "{}", "'unet-seed0' is no name of a run"),
        ("official/test/sampath-seed0/scores.json", "{", "cannot be read"),
        ("official/test/sampath-seed0/scores.json", "{}", "does not say as_in_the_paper"),
        ("official/test/sampath-seed0/scores.json", None, "cannot be read"),
        ("other/test/sampath-seed0/scores.json", "good", "'other' is no way of splitting"),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, path: str, content: str | None, message: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    if content == "good":
        write_scores(file, GLANDS, 0.5)
    elif content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_results("crag", [file])
