"""The model that ships knows the tissue that it was made for, and says that it knows no other."""

from __future__ import annotations

import numpy as np
import torch

from sampath_wsi.metrics import ConfusionMatrix
from sampath_wsi.model.bundle import load_bundle
from sampath_wsi.model.sampath import predict_labels, upsample_logits
from sampath_wsi.model.zoo import ZOO_DIR
from sampath_wsi.synthetic import CLASSES, TRUTH_DOWNSAMPLE, Painter, Scene


def test_demo_model_is_small_and_honest() -> None:
    assert sum(p.stat().st_size for p in (ZOO_DIR / "demo").iterdir()) < 12_000_000
    card = load_bundle("demo").card
    assert card.classes == CLASSES
    assert card.scores["validation/macro/dice"] > 0.95
    assert "synthetic tissue only" in card.limitations
    assert card.licence == "Apache-2.0"


def test_demo_model_segments_a_slide_that_it_was_not_trained_on() -> None:
    scene, bundle = Scene(8000, 6000, seed=21), load_bundle("demo")
    painter, side = Painter(scene), 1024
    matrix = ConfusionMatrix.empty(len(CLASSES))
    for x, y in ((1500, 1500), (3500, 2500), (5000, 3500), (3000, 4000)):
        read = painter.paint(x, y, side, side).reshape(side // 2, 2, side // 2, 2, 3).mean((1, 3), dtype=np.float32)
        with torch.inference_mode():
            logits, _ = bundle.model(torch.from_numpy(read).permute(2, 0, 1)[None] / 255)
        map_px = side // TRUTH_DOWNSAMPLE
        truth = scene.class_map(x // TRUTH_DOWNSAMPLE, y // TRUTH_DOWNSAMPLE, map_px, map_px)
        matrix += ConfusionMatrix.of(truth, predict_labels(upsample_logits(logits, (map_px, map_px)))[0].numpy(), 5)
    assert matrix.present.sum() >= 4
    assert matrix.macro("dice") > 0.93
