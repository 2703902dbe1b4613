"""The loss against the values and gradients that the authors' code gave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sampath_wsi.training.loss import LossTerms, sam_path_loss
from sampath_wsi.training.recipe import LossSpec


def _case(
    shared_data: Path, number: int
) -> tuple[dict[str, float], dict[str, np.ndarray], LossTerms, list[torch.Tensor]]:
    spec = json.loads((shared_data / "parity" / "loss_cases.json").read_text())[number]
    with np.load(shared_data / "parity" / "loss_cases.npz") as arrays:
        values = {k.removeprefix(f"c{number}_"): arrays[k] for k in arrays if k.startswith(f"c{number}_")}
    logits = torch.tensor(values["logits"], requires_grad=True)
    iou = torch.tensor(values["iou_pred"][..., 0], requires_grad=True)
    weights = LossSpec(
        focal=spec["focal_cof"], dice=spec["dice_cof"], iou=spec["iou_cof"], cross_entropy=spec["ce_cof"]
    )
    terms = sam_path_loss(logits, iou, torch.tensor(values["target"]), weights)
    terms.total.backward()
    return spec, values, terms, [logits, iou]


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_equals_the_authors_loss_and_gradients(shared_data: Path, number: int) -> None:
    spec, values, terms, (logits, iou) = _case(shared_data, number)
    for name in ("focal", "dice", "iou"):
        assert getattr(terms, name).item() == pytest.approx(spec[name], abs=1e-5)
    assert terms.total.item() == pytest.approx(spec["loss"], abs=1e-5)
    if spec["ce_cof"]:
        assert terms.cross_entropy.item() == pytest.approx(spec["ce"], abs=1e-5)
    np.testing.assert_allclose(logits.grad.numpy(), values["grad_logits"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(iou.grad.numpy(), values["grad_iou_pred"][..., 0], rtol=0, atol=1e-6)


def test_is_finite_where_the_authors_loss_is_nan(shared_data: Path) -> None:
    spec, values, terms, (logits, iou) = _case(shared_data, 4)
    assert np.isnan(spec["loss"])
    assert not values["target"].any()
    for name in ("focal", "dice", "iou"):
        assert getattr(terms, name).item() == pytest.approx(spec[name], abs=1e-5)
    assert torch.isfinite(terms.total)
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(iou.grad).all()


def test_cross_entropy_is_zero_without_labelled_pixels() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    given = logits, torch.zeros(1, 3), torch.zeros(1, 4, 4), LossSpec(cross_entropy=1.0)
    terms = sam_path_loss(*given)
    terms.total.backward()
    assert terms.cross_entropy.item() == 0
    assert torch.isfinite(logits.grad).all()
    nowhere = sam_path_loss(*given, labelled_px=0.0)
    assert nowhere.cross_entropy.item() == 0


def test_sum_over_classes_is_the_mean_times_their_number() -> None:
    torch.manual_seed(0)
    logits, iou, labels = torch.randn(2, 4, 8, 8), torch.rand(2, 4), torch.randint(0, 4, (2, 8, 8))
    mean, total = (sam_path_loss(logits, iou, labels, LossSpec(reduction=r)) for r in ("mean", "sum"))
    for name in ("focal", "dice", "iou", "total"):
        assert getattr(total, name).item() == pytest.approx(3 * getattr(mean, name).item(), rel=1e-5)
