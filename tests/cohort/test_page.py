from __future__ import annotations

import base64
import html.parser
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from sampath_wsi.classes import TissueClass
from sampath_wsi.cohort.page import write_page
from sampath_wsi.cohort.pictures import embed
from sampath_wsi.cohort.table import read_cohort
from sampath_wsi.files import write_json
from sampath_wsi.model.card import ModelCard
from sampath_wsi.model.zoo import ZOO_DIR
from sampath_wsi.results import RunResults
from sampath_wsi.runs.sheet import SheetRow
from sampath_wsi.stages.report import label_picture

from .cohorts import CLASSES, make_cohort, summary

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}&amp;\u202egnp.exe\x00"


class Reader(html.parser.HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        found = [attributes for name, attributes in self.tags if name == tag]
        return [each for each in found if all(each.get(key.rstrip("_")) == value for key, value in wanted.items())]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(folder: Path, rows: list[SheetRow], **options: Any) -> Reader:
    write_page(read_cohort(rows, folder), folder, folder / "cohort.html", **options)
    return Reader((folder / "cohort.html").read_text(encoding="utf-8"))


def test_slides_without_a_result_stand_first_then_warnings(tmp_path: Path) -> None:
    kinds = ("done", "missing", "warned", "killed", "empty", "failed")
    page = page_of(tmp_path, make_cohort(tmp_path, kinds, {"patient": "P-17"}))
    rows = page.all("tr")[1:7]
    states = [str(row["data-state"]) for row in rows]
    assert states == ["failed", "unfinished", "unfinished", "warned warned", "empty warned", "done"]
    assert "slide-006.svs: the file is empty. Copy it again." in page.text
    assert "tile: did not finish (killed, or still running)" in page.text
    assert "6 slides, 3 finished" in page.text
    for count in ("3 finished", "1 failed", "2 unfinished", "1 without tissue", "2 with warnings"):
        assert count in page.text
    assert page.text.count("P-17") == 6 + 3  # every row, and the cards of finished slides


def test_numbers_are_those_of_the_summaries(tmp_path: Path) -> None:
    (row,) = make_cohort(tmp_path, ["done"])
    page = page_of(tmp_path, [row])
    written = summary(row.slide)
    for entry in written["classes"].values():
        assert f"{entry['area_mm2']:.3f}" in page.text
        assert f"{entry['percent']:.1f}" in page.text
    for text in ("cuda:0 (NVIDIA A100)", "infer 61 s", "Tiles 40", "Objects 42", "0.2325 µm/px (metadata)"):
        assert text in page.text
    values = [cell["data-value"] for cell in page.all("td", class_="number") if "data-value" in cell]
    assert values[0] == "4.0"
    assert values[1] == str(written["classes"]["Tumor"]["percent"])


def test_what_users_call_things_is_never_html(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    rows = [SheetRow(slide="a", path="a.tif", extra={HOSTILE: HOSTILE, "other": ""}), SheetRow(slide="b", path="b.tif")]
    record = summary(HOSTILE, "warned")
    classes = {f"{HOSTILE}{n}": entry for n, entry in enumerate(record["classes"].values())}
    texts = dict.fromkeys(("file", "mpp_source", "model", "weights_sha256", "device", "software", "version"), HOSTILE)
    write_json(
        folder / "slides" / "a" / "summary.json",
        {**record, **texts, "classes": classes, "warnings": [HOSTILE], "seconds": {HOSTILE: 1.0}},
    )
    write_json(folder / "slides" / "b" / "run" / "tile.json", {"status": "failed", "error": HOSTILE})
    card = ModelCard.read(ZOO_DIR / "demo" / "card.json").model_copy(
        update=dict.fromkeys(("name", "description", "limitations", "licence", "data"), HOSTILE)
    )
    outcomes = [replace(outcome, slide=HOSTILE) for outcome in read_cohort(rows, folder)]
    options: dict[str, Any] = {"card": card, "config": {HOSTILE: HOSTILE}, "table": folder / "cohort.tsv"}
    write_page(outcomes, folder / "no logs", folder / "cohort.html", **options)
    page = Reader((folder / "cohort.html").read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count("alert(1)") > 20
    assert "49" not in re.findall(r"\d+ \}\}|<img src=x onerror=alert\(1\)>(\d+)", page.text)
    source = (folder / "cohort.html").read_text(encoding="utf-8")
    assert "\u202e" not in source
    assert "\x00" not in source


def test_nothing_is_loaded_and_only_its_own_script_may_run(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_cohort(tmp_path, ["done", "failed"]))
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    content = str(policy["content"])
    assert content.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in content
    for _, attributes in page.tags:
        assert "style" not in attributes  # the policy would not apply it
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert "://" not in str(attributes.get("href", ""))
    assert page.all("html", lang="en")


def test_links_lead_to_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "the results #1?"
    rows = make_cohort(folder, ["done", "warned", "failed", "missing"])
    out = tmp_path / "elsewhere" / "page.html"
    write_page(read_cohort(rows, folder), folder, out, table=folder / "cohort.tsv")
    (folder / "cohort.tsv").touch()
    links = [str(link["href"]) for link in Reader(out.read_text()).all("a", class_="file")]
    assert len(links) == 1 + 2 * 6 + 1
    assert [link for link in links if not (out.parent / unquote(link)).exists()] == []
    anchors = [str(link["href"])[1:] for link in Reader(out.read_text()).all("a") if str(link["href"]).startswith("#")]
    identifiers = {attributes.get("id") for _, attributes in Reader(out.read_text()).tags}
    assert set(anchors) <= identifiers


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    rows = make_cohort(tmp_path, ["done", "failed", "empty", "warned"] * 3)
    card = ModelCard.read(ZOO_DIR / "demo" / "card.json")
    for name in ("a.html", "b.html"):
        write_page(read_cohort(rows, tmp_path), tmp_path, tmp_path / name, card=card, config={"slides": "x.tsv"})
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_missing_and_damaged_pieces_are_said(tmp_path: Path) -> None:
    rows, slides = make_cohort(tmp_path, ["done"] * 5), tmp_path / "slides"
    for name, damage in (("thumbnail.jpg", b"\xff\xd8 not a picture"), ("thumbnail-classes.png", b"")):
        for row in rows[:2]:
            (slides / row.slide / name).unlink()
        (slides / rows[1].slide / name).write_bytes(damage)
    (slides / rows[2].slide / "thumbnail-classes.png").unlink()
    (slides / rows[3].slide / "summary.json").write_text('{"slide": 1}')
    (slides / rows[4].slide / "evaluation.json").write_text('{"classes": []}')
    page = page_of(tmp_path, rows)
    assert page.text.count("No picture: thumbnail.jpg is missing or cannot be read.") == 2
    assert len(page.all("img", class_="photo")) == 2
    assert len(page.all("img", class_="layer")) == 1
    assert "summary.json is damaged (slide: Input should be a valid string). Delete it and run again." in page.text
    assert "4 finished" in page.text


def test_a_cohort_without_any_result_is_a_page_too(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_cohort(tmp_path, ["missing", "failed", "killed"]))
    assert "3 slides, 0 finished" in page.text
    assert "There is no area to show" in page.text


def test_what_made_it_is_said(tmp_path: Path) -> None:
    card = ModelCard.read(ZOO_DIR / "glas-tiny" / "card.json")
    config = {"slides": "x.tsv", "tile": {"overlap": None}}
    page = page_of(tmp_path, make_cohort(tmp_path, ["done"]), card=card, config=config)
    for text in (card.licence, card.limitations, card.description, "torch 2.13.0", "tile: overlap: null", "69f934ed"):
        assert text in page.text
    assert "(not the weights of the card above)" in page.text


def test_more_classes_than_patterns_differ_all_the_same(tmp_path: Path) -> None:
    (row,) = make_cohort(tmp_path, ["done"])
    record = summary(row.slide)
    names = [f"class {n}" for n in range(20)]
    entry = {"area_mm2": 0.2, "percent": 5.0, "color": (120, 120, 120)}
    write_json(tmp_path / "slides" / row.slide / "summary.json", {**record, "classes": dict.fromkeys(names, entry)})
    source = (page_of(tmp_path, [row]), (tmp_path / "cohort.html").read_text())[1]
    patterns = re.findall(r'<pattern id="class-\d+"(.*?)</pattern>', source, re.DOTALL)
    assert len(patterns) == 20
    assert len(set(patterns)) == 20


@pytest.mark.parametrize("budget", [6_000_000, 500_000])
def test_pictures_of_many_slides_keep_to_the_budget(
    tmp_path: Path, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sampath_wsi.cohort import pictures

    rows = make_cohort(tmp_path, ["done"] * 24)
    found = pictures.embed_all([RunResults(tmp_path).slide(row.slide) for row in rows], budget)
    assert all(picture is not None and picture.layer is not None for picture in found)
    size = sum(len(base64.b64decode(uri.split(",")[1])) for p in found if p for uri in (p.photo, p.layer or ","))
    assert size <= budget
    # What the budget leaves is used: the pictures are as large as they may be.
    assert size > budget / 3 or max(found[0].width_px, found[0].height_px) == 800  # type: ignore[union-attr]


def test_the_scale_bar_is_as_long_as_it_says(tmp_path: Path) -> None:
    (row,) = make_cohort(tmp_path, ["done"])
    picture = embed(RunResults(tmp_path).slide(row.slide), 100_000)
    assert picture is not None
    # 960 px of 8 um: a quarter is 1.92 mm.
    assert picture.bar_text == "1 mm"
    assert picture.bar_percent == pytest.approx(100 * 1000 / (960 * 8), abs=0.01)


@pytest.mark.parametrize("size", [(1, 960), (960, 2), (1, 1)])
def test_slides_of_any_shape_have_a_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    rows = make_cohort(tmp_path, ["done", "done"])
    results = RunResults(tmp_path).slide(rows[0].slide)
    for file in (results.thumbnail, results.thumbnail_classes):
        file.unlink()
    Image.new("RGB", size, (200, 100, 150)).save(results.thumbnail)
    label_picture(np.ones(size[::-1], np.uint8), CLASSES, size).save(results.thumbnail_classes, dpi=(3175, 3175))
    assert len(page_of(tmp_path, rows).all("img", class_="photo")) == 2
    picture = embed(results, 100_000)
    assert picture is not None
    assert picture.layer is not None
    for uri in (picture.photo, picture.layer, picture.icon):
        assert min(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size) >= 1
    assert min(picture.shown_px) >= 1


def test_colours_are_the_models(tmp_path: Path) -> None:
    card = ModelCard.read(ZOO_DIR / "demo" / "card.json")
    card = card.model_copy(update={"classes": (TissueClass(name="Tumor", color=(1, 2, 3)),)})
    rows = make_cohort(tmp_path, ["done"])
    source = (page_of(tmp_path, rows, card=card), (tmp_path / "cohort.html").read_text())[1]
    assert 'fill="rgb(1,2,3)"' in source
    assert 'fill="rgb(200,0,0)"' not in source
    assert 'fill="rgb(150,200,150)"' in source
