from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sampath_wsi.model import torchvision_compat
from sampath_wsi.model.torchvision_compat import nms

FRESH_PROCESS = """
import sampath_wsi.model
import sys
assert "torch" not in sys.modules, "importing the package alone must stay cheap"
import sampath_wsi.model.torchvision_compat as compat
assert compat.DECLARED is not compat.own_library_loads()
import numpy as np, timm, torch, torchvision
import torch.nn as nn
from segment_anything import SamAutomaticMaskGenerator
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
scores = torch.tensor([0.5, 0.9, 0.3])
assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [1, 2]
assert torchvision.ops.batched_nms(boxes, scores, torch.tensor([0, 1, 0]), 0.5).tolist() == [1, 0, 2]
from tests.model.helpers import small_sam
generator = SamAutomaticMaskGenerator(small_sam(), points_per_side=2, pred_iou_thresh=-9, stability_score_thresh=0)
masks = generator.generate(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
assert isinstance(masks, list)
"""


def test_everything_imports_in_a_fresh_process_without_a_warning():
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", FRESH_PROCESS], cwd=root, capture_output=True, text=True, timeout=3600
    )
    assert (result.returncode, result.stderr) == (0, "")


def intersection_over_union(a: torch.Tensor, b: torch.Tensor) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(shared / union) if union > 0 else 0.0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_equals_its_definition(seed, threshold):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(12, 2, generator=generator) * 5
    boxes = torch.cat([corner, corner + torch.rand(12, 2, generator=generator) * 5], dim=1)
    scores = torch.rand(12, generator=generator)
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if all(intersection_over_union(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    assert nms(boxes, scores, threshold).tolist() == kept


def test_nms_of_nothing():
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


class TestOwnLibrary:
    @pytest.fixture
    def torchvision_dir(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        spec = importlib.machinery.ModuleSpec("torchvision", None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path)]
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)
        return tmp_path

    def test_a_library_that_loads_is_left_alone(self, torchvision_dir):
        # Any library that loads will do.
        (torchvision_dir / "_C.so").symlink_to(torch._C.__file__)
        assert torchvision_compat.own_library_loads()
        assert torchvision_compat._declare_missing_operators() is None

    def test_one_that_does_not_load_is_seen(self, torchvision_dir):
        assert not torchvision_compat.own_library_loads()
        (torchvision_dir / "_C.so").write_bytes(b"no library")
        assert not torchvision_compat.own_library_loads()

    def test_without_torchvision_nothing_is_declared(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)
        assert torchvision_compat._declare_missing_operators() is None
