from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sampath_wsi.model.libraries import declare_torchvision_operators, torchvision_fits

FRESH_PROCESS = """
import sys
import sampath_wsi.model.zoo
assert "torch" not in sys.modules, "names and cards are read without torch"
from sampath_wsi.model import libraries
assert (libraries._library is None) is libraries.torchvision_fits()
import torchvision
assert torchvision.extension._has_ops() is libraries.torchvision_fits(), "torchvision itself is left as it is"
"""


def test_all_imports_in_a_fresh_process_without_a_warning():
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", FRESH_PROCESS], cwd=root, capture_output=True, text=True, timeout=3600
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.fixture
def torchvision_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    spec = importlib.machinery.ModuleSpec("torchvision", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    return tmp_path


def test_a_library_that_loads_is_left_alone(torchvision_folder):
    # Any library that loads will do.
    (torchvision_folder / "_C.so").symlink_to(torch._C.__file__)
    assert torchvision_fits()
    assert declare_torchvision_operators() is None


def test_one_that_does_not_load_is_seen(torchvision_folder):
    assert not torchvision_fits()
    (torchvision_folder / "_C.so").write_bytes(b"no library")
    assert not torchvision_fits()


def test_without_torchvision_nothing_is_declared(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert torchvision_fits()
    assert declare_torchvision_operators() is None
