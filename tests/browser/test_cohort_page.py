"""The cohort's page in a real browser, of 3 and of 500 slides, as people use it."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from .chromium import Chromium
from .conftest import Cohort

pytestmark = pytest.mark.browser

_COLUMN = """
    const rows = [...document.querySelectorAll("#cohort tbody tr:not([hidden])")];
    return rows.map(row => row.cells[arguments[0]]?.textContent.trim() ?? "");
"""
_ONLY = """
    const only = document.getElementById("only");
    only.value = arguments[0];
    only.dispatchEvent(new Event("change"));
"""


def column(browser: Chromium, number: int) -> list[str]:
    """The texts of a column of the table, of the rows that are shown."""
    return list(browser.run(_COLUMN, number))


def heading(browser: Chromium, text: str) -> Any:
    (found,) = [button for button in browser.find("#cohort thead button") if text in button.text]
    return found


def test_it_opens_without_errors_and_without_requests(browser: Chromium, cohort: Cohort) -> None:
    browser.open(cohort.page)
    browser.settle()
    assert browser.messages() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [cohort.page.as_uri()]
    assert len(browser.find("#cohort tbody tr")) == cohort.slides
    assert cohort.page.stat().st_size < 40_000_000
    # The script ran, and the policy let it.
    assert browser.find("#cohort thead button")


def test_sorting_by_mouse(browser: Chromium, cohort: Cohort) -> None:
    browser.open(cohort.page)
    before = column(browser, 1)
    tissue = heading(browser, "Tissue")
    tissue.click()
    (cell,) = browser.find("#cohort thead th[aria-sort]")
    assert cell.get_attribute("aria-sort") == "ascending"
    numbers = [float(text) for text in column(browser, 5) if text]
    assert numbers == sorted(numbers)
    tissue.click()
    assert cell.get_attribute("aria-sort") == "descending"
    numbers = [float(text) for text in column(browser, 5) if text]
    assert numbers == sorted(numbers, reverse=True)
    # Slides without a number stay at the end.
    assert all(column(browser, 5)[: len(numbers)])
    heading(browser, "Slide").click()
    assert column(browser, 1) == sorted(before)


def test_sorting_and_skipping_by_keyboard(browser: Chromium, cohort: Cohort) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(cohort.page)
    press = browser.driver.switch_to.active_element
    press.send_keys(Keys.TAB)
    skip = browser.driver.switch_to.active_element
    assert skip.text == "Skip to the content"
    skip.send_keys(Keys.ENTER)
    assert browser.run("return document.activeElement.id") == "content"
    for _ in range(20):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = browser.driver.switch_to.active_element
        if focused.text.startswith("Slide"):
            break
    assert focused.text.startswith("Slide")
    # What has the focus can be seen.
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    focused.send_keys(Keys.ENTER)
    assert column(browser, 1) == sorted(column(browser, 1))
    focused.send_keys(Keys.SPACE)
    assert column(browser, 1) == sorted(column(browser, 1), reverse=True)


def test_the_filter_hides_rows_and_cards(browser: Chromium, cohort: Cohort) -> None:
    browser.open(cohort.page)
    box = browser.find("#filter")[0]
    box.send_keys("slide-003")
    assert column(browser, 1) == ["slide-003"]
    assert [card.get_attribute("data-slide") for card in browser.find(".card:not([hidden])")] == [
        row.get_attribute("data-slide") for row in browser.find("#cohort tbody tr:not([hidden])")
    ]
    assert browser.find("#shown")[0].text == f"1 of {cohort.slides} slides"
    box.send_keys(" no such thing")
    assert column(browser, 1) == []
    box.clear()
    box.send_keys(" ")
    browser.run(_ONLY, "failed unfinished")
    assert len(column(browser, 1)) == sum(not each.results.summary_file.exists() for each in cohort.outcomes)
    assert {state.split()[1] for state in column(browser, 4)} <= {"Failed", "Unfinished"}


def test_links_lead_to_files_and_places(browser: Chromium, cohort: Cohort) -> None:
    browser.open(cohort.page)
    links = browser.run("return [...document.querySelectorAll('a.file')].map(a => a.href)")
    assert len(links) > 2 * len([each for each in cohort.outcomes if each.results.summary_file.exists()])
    assert [link for link in links if not Path(unquote(urlsplit(link).path)).exists()] == []
    missing = (
        "return [...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash)).length"
    )
    assert browser.run(missing) == 0
    browser.find("#cohort tbody tr:last-child th a")[0].click()
    browser.settle()
    top = browser.run("return document.querySelector(location.hash).getBoundingClientRect().top")
    assert 0 <= top < 900


def test_every_picture_can_be_shown(browser: Chromium, cohort: Cohort) -> None:
    browser.open(cohort.page)
    script = """
        const done = arguments[0];
        const images = [...document.images];
        for (const image of images) image.loading = "eager";
        Promise.all(images.map(i => i.decode().then(() => i.naturalWidth, () => 0))).then(done);
    """
    widths = browser.driver.execute_async_script(script)
    with_picture = sum(each.results.thumbnail.exists() for each in cohort.outcomes)
    assert len(widths) == 3 * with_picture
    assert min(widths) > 20
    assert browser.run("return [...document.images].filter(i => !i.hasAttribute('alt')).length") == 0


@pytest.mark.parametrize("width_px", [1280, 768, 400])
def test_the_page_is_never_wider_than_the_screen(browser: Chromium, cohort: Cohort, width_px: int) -> None:
    browser.open(cohort.page, width_px=width_px)
    browser.run("for (const card of document.querySelectorAll('.card')) card.style.contentVisibility = 'visible'")
    assert browser.run("return document.documentElement.scrollWidth") <= width_px
    outside = """
        const scrolls = e => e && (getComputedStyle(e).overflowX === "auto" || scrolls(e.parentElement));
        return [...document.querySelectorAll("main *")].filter(e => {
            const box = e.getBoundingClientRect();
            return box.width > 1 && (box.right > innerWidth + 1 || box.left < -1) && !scrolls(e.parentElement);
        }).map(e => e.outerHTML.slice(0, 80))
    """
    assert browser.run(outside) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_to_object_to(browser: Chromium, cohort: Cohort, dark: bool) -> None:
    axe_python = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed: make test-browser")
    browser.open(cohort.page, dark=dark)
    # Of hundreds of equal rows and cards the first ones say it all, in a hundredth of the time.
    many = "#cohort tbody tr:nth-child(n + 60), .card:nth-of-type(n + 60)"
    browser.run("for (const each of document.querySelectorAll(arguments[0])) each.remove()", many)
    browser.run((Path(axe_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = browser.driver.execute_async_script("const done = arguments[0]; axe.run().then(done)")
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20


def test_plots_can_be_read_without_seeing_colours(browser: Chromium, cohort: Cohort) -> None:
    browser.open(cohort.page, colours=False)
    assert [name.text for name in browser.find(".plots .plot:first-child .name")] == [
        "Tumor",
        "Stroma",
        "Immune cells",
        "Necrosis",
        "Other",
    ]
    bars = [Image.open(io.BytesIO(bar.screenshot_as_png)).convert("RGB") for bar in browser.find(".legend .swatch")]
    pixels = [np.asarray(bar, np.int64)[2:14, 2:14] for bar in bars]
    # It is grey indeed, and any two classes differ.
    assert max(int(np.ptp(each, axis=2).max()) for each in pixels) <= 2
    for one, other in combinations(pixels, 2):
        assert np.abs(one - other).mean() > 8
    if cohort.slides == 3:
        texts = [text.text for text in browser.find(".stacked text")]
        assert texts
        assert all(text.endswith("%") for text in texts)


def test_a_class_can_be_looked_at_alone(browser: Chromium, cohort: Cohort) -> None:
    browser.open(cohort.page)
    card = browser.find(".card:has(.layer)")[0]
    button = card.find_elements("css selector", "button.class-name")[1]
    browser.run("arguments[0].scrollIntoView()", card)
    button.click()
    browser.settle()
    assert button.get_attribute("aria-pressed") == "true"
    colours = """
        const canvas = arguments[0].querySelector("canvas.layer");
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const sums = [0, 0, 0, 0];
        for (let at = 0; at < data.length; at += 4)
            if (data[at + 3]) { sums[3]++; for (let c = 0; c < 3; c++) sums[c] += data[at + c]; }
        return [sums[0] / sums[3], sums[1] / sums[3], sums[2] / sums[3], sums[3] / canvas.width / canvas.height];
    """
    red, green, blue, share = browser.run(colours, card)
    assert 0.02 < share < 0.8
    assert (red, green, blue) == pytest.approx((150, 200, 150), abs=12)  # its borders are darker
    button.click()
    browser.settle()
    assert not card.find_elements("css selector", "canvas")


def test_without_scripts_the_page_is_whole(browser: Chromium, cohort: Cohort) -> None:
    browser.open(cohort.page, scripts=False)
    assert len(browser.find("#cohort tbody tr")) == cohort.slides
    assert not browser.find("#cohort thead button")
    assert not browser.find("#controls")[0].is_displayed()
    card = browser.find(".card:has(.layer)")[0].get_attribute("id")
    browser.driver.get(f"{cohort.page.as_uri()}#{card}")
    layer, toggle = browser.find(f"#{card} img.layer")[0], browser.find(f"#{card} .toggle input")[0]
    assert layer.value_of_css_property("visibility") == "visible"
    toggle.click()
    assert layer.value_of_css_property("visibility") == "hidden"
    browser.tell("Emulation.setScriptExecutionDisabled", value=False)


def test_on_paper_nothing_is_hidden(browser: Chromium, cohort: Cohort) -> None:
    browser.open(cohort.page, dark=True)
    browser.tell("Emulation.setEmulatedMedia", media="print")
    assert not browser.find("#controls")[0].is_displayed()
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    scroll = "const e = document.querySelector('.scroll'); return e.scrollHeight - e.clientHeight"
    assert browser.run(scroll) <= 1
    if cohort.slides == 3:
        assert len(browser.tell("Page.printToPDF", printBackground=True)["data"]) > 50_000


@pytest.mark.parametrize("width_px", [1280, 400])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_screenshots(browser: Chromium, cohort: Cohort, screenshots: Path, width_px: int, dark: bool) -> None:
    browser.open(cohort.page, width_px=width_px, dark=dark)
    name = f"cohort-{cohort.slides}-{width_px}-{'dark' if dark else 'light'}.png"
    path = browser.screenshot(screenshots / name)
    with Image.open(path) as picture:
        assert picture.width == width_px
        # Something is drawn on it.
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 500
