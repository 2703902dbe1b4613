from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sampath_wsi.cohort.page import write_page
from sampath_wsi.cohort.table import SlideOutcome, read_cohort, write_cohort
from sampath_wsi.model.card import ModelCard
from sampath_wsi.model.zoo import ZOO_DIR
from tests.cohort.cohorts import make_cohort

from .chromium import Chromium, chromium

CONFIG = {"slides": "slides.tsv", "model": "demo", "tile": {"overlap": None, "min_tissue": 0}}
# 20 slides of which some fail, again and again.
MANY = (*["done"] * 6, "warned", "done", "failed", *["done"] * 5, "empty", "done", "killed", "done", "missing", "done")


@dataclass(frozen=True)
class Cohort:
    page: Path
    slides: int
    outcomes: list[SlideOutcome]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    pytest.importorskip("selenium", reason="selenium is not installed: make test-browser installs it")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("there is no Chromium here: apt-get install chromium chromium-driver")
    with chromium(program, driver, tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="session", params=[3, 500])
def cohort(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """The results of a cohort and its page."""
    slides = int(request.param)
    folder = tmp_path_factory.mktemp(f"cohort-{slides}")
    kinds = [MANY[k % len(MANY)] for k in range(slides)] if slides > 3 else ["done", "warned", "failed"]
    rows = make_cohort(folder, kinds, {"patient": "P-17", "dose": "2.5"})
    outcomes = read_cohort(rows, folder)
    write_cohort(outcomes, folder / "cohort.tsv")
    card = ModelCard.read(ZOO_DIR / "demo" / "card.json")
    page = folder / "cohort.html"
    write_page(outcomes, folder, page, table=folder / "cohort.tsv", card=card, config=CONFIG)
    return Cohort(page, slides, outcomes)


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("screenshots")
    yield folder
    print(f"\nscreenshots to look at: {folder}")
