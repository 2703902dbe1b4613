from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from sampath_wsi.cli.run import stage_run
from sampath_wsi.progress import Display, duration, per_time, stepper
from tests.helpers import blob_slide


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_rate_counts_what_this_run_did() -> None:
    clock = Clock()
    shown = Display("stage", clock=clock)

    def after(now_s: float, done: int) -> str:
        clock.now_s = now_s
        shown.show(done, 1000, "tiles")
        return shown.describe()

    clock.now_s = 2.0
    assert shown.describe() == "2.0 s"
    assert after(3.0, 500) == "500 of 1000 tiles"
    assert after(4.0, 510) == "510 of 1000 tiles"
    assert after(14.0, 530) == "530 of 1000 tiles, 2/s, 4 min left"
    assert after(104.0, 960) == "960 of 1000 tiles, 4.5/s, 9.0 s left"
    assert after(114.0, 1000) == "1000 of 1000 tiles, 4.45/s"
    # Another pass begins anew.
    assert after(115.0, 10) == "10 of 1000 tiles"
    shown.stop()


def test_times_and_rates_are_words_for_people() -> None:
    assert [duration(s) for s in (0.04, 9.94, 9.96, 99, 100, 3599, 3600, 90_000)] == [
        "0.0 s",
        "9.9 s",
        "10 s",
        "99 s",
        "2 min",
        "1 h 0 min",
        "1 h 0 min",
        "1 d 1 h",
    ]
    assert [per_time(r) for r in (183_456.7, 12.345, 0.5, 0.001)] == ["183,457/s", "12.3/s", "30/min", "3.6/h"]


def test_a_pass_is_shown_from_its_beginning() -> None:
    seen: list[tuple[object, ...]] = []
    step = stepper(lambda *what: seen.append(what), 3, "tiles", 1)
    step(2)
    stepper(lambda *what: seen.append(what), 0, "tiles")
    stepper(None, 3, "tiles")()
    assert seen == [(1, 3, "tiles"), (3, 3, "tiles")]


def test_a_log_gets_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    def wait_for(text: str) -> None:
        until = time.monotonic() + 20
        while not any(text in message for message in caplog.messages):
            assert time.monotonic() < until, caplog.messages
            time.sleep(0.01)

    with caplog.at_level(logging.INFO):
        shown = Display("stage", every_s=0.02)
        wait_for("stage: running for 0.")
        shown.show(1, 4, "tiles")
        wait_for("stage: 1 of 4 tiles")
        shown.show(4, 4, "tiles")
        shown.show(4, 4, "tiles")
        assert caplog.messages.count("stage: 4 of 4 tiles") == 1
        shown.stop()


def test_a_log_begins_with_what_runs_and_ends_with_how_long(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sampath-wsi", "tile", "a slide.svs"])
    monkeypatch.setattr("sampath_wsi.cli.run.given_options", {"overlap": 64})
    with caplog.at_level(logging.INFO):
        with stage_run("tile", "a slide.svs", None) as run:
            run.works_with(model="demo", device="cpu")
            run.facts["warnings"] = ["pale"]
        patterns = (
            r"tile: a slide\.svs",
            r"tile: command: sampath-wsi tile 'a slide\.svs'",
            r"tile: on .+: \d+ cores, [\d.]+ GiB of memory, \w+ \w+",
            r"tile: with sampath-wsi [\d.]+, Python 3[\d.]+, numpy .+, torch .+, zarr .+",
            r"tile: options: overlap=64",
            r"tile: model demo, device cpu",
            r"tile: warning: pale",
            r"tile: finished in [\d.]+ s",
        )
        assert len(caplog.messages) == len(patterns)
        for message, pattern in zip(caplog.messages, patterns, strict=True):
            assert re.fullmatch(pattern, message), message
        with pytest.raises(ZeroDivisionError), stage_run("tile", "a.svs", None):
            1 / 0  # noqa: B018
    assert re.fullmatch(r"tile: failed after [\d.]+ s", caplog.messages[-1])


def test_who_watches_sees_a_bar(tmp_path: Path, tiny_model: Path) -> None:
    """The command itself on a terminal: a bar while it runs, then the line that it finished, and no bar left."""
    slide = blob_slide(tmp_path / "s.tif", size=1500)
    command = ["tile", slide, "--out", tmp_path / "t.zarr", "--model", tiny_model, "--threads", 1]
    screen = on_a_terminal([str(Path(sys.executable).with_name("sampath-wsi")), *map(str, command)])
    assert re.search(r"tile .*━.* \d+ of \d+ tiles", screen)
    last = screen.strip().splitlines()[-1]
    assert re.search(r"tile: finished in [\d.]+ s", last)
    assert "command:" not in screen


def on_a_terminal(command: list[str]) -> str:
    """Everything that a command writes to a terminal of 100 columns, without the control sequences."""
    terminal, its_side = pty.openpty()
    fcntl.ioctl(its_side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdin=its_side, stdout=its_side, stderr=its_side, env=environment)
    os.close(its_side)
    written = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # Linux says so when the other side has closed
            break
        if not part:
            break
        written += part
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    assert process.wait() == 0, text
    return text
