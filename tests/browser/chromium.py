"""Debian's Chromium without a window, and what its developer tools say of a page."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# As root, in containers and without a network; all that Chromium asks of its makers' servers is off.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class Chromium:
    """A browser; ``run`` evaluates JavaScript in the page that is open."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.run = driver.execute_script

    def open(
        self, page: Path, *, width_px: int = 1280, dark: bool = False, scripts: bool = True, colours: bool = True
    ) -> None:
        """Open a page on a screen of this width; ``colours=False`` shows it as somebody sees it who sees greys only."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width_px, height=900, deviceScaleFactor=1, mobile=False)
        scheme = "dark" if dark else "light"
        self.tell("Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.tell("Emulation.setEmulatedVisionDeficiency", type="none" if colours else "achromatopsia")
        self.tell("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.messages(), self.requests()
        self.driver.get(page.as_uri())

    def tell(self, command: str, **parameters: Any) -> Any:
        """A command of the developer tools' protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def find(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def messages(self) -> list[str]:
        """What the console says since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """What was asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Path, *, height_px: int = 4000) -> Path:
        """The page from its top, of at most this height, with all its pictures."""
        size = self.tell("Page.getLayoutMetrics")["cssContentSize"]
        # What is not on the screen is not drawn, unless the screen is as large.
        height_px = min(height_px, int(size["height"]))
        width_px = int(size["width"])
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=False
        )
        self.settle()
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot")["data"]))
        return path

    def settle(self) -> None:
        """Wait until what is on the screen is drawn."""
        script = (
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 200)))"
        )
        self.driver.execute_async_script(script)


@contextmanager
def chromium(browser: str, driver: str, folder: Path) -> Iterator[Chromium]:
    """A fresh browser that keeps what it keeps in ``folder``."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    running.set_script_timeout(120)
    try:
        yield Chromium(running)
    finally:
        running.quit()
