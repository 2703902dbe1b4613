from __future__ import annotations

import importlib
import signal
import time
from pathlib import Path

import pytest

from sampath_wsi.machine.stopping import Stopped, stoppable

# As numpy does it: whatever is raised amid its import becomes an ImportError.
MODULE = """
import os, time
try:
    os.kill(os.getpid(), {number})
    time.sleep(0.01)
except BaseException as error:
    raise ImportError("something is wrong with this installation") from error
whole = True
"""


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_amid_an_import_counts_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, raised: type[BaseException]
) -> None:
    name = f"told_by_{number.name.lower()}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(number=int(number)))
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def work() -> None:
        with stoppable():
            assert importlib.import_module(name).whole
            time.sleep(30)

    try:
        with pytest.raises(raised):
            work()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
