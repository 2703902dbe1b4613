from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sampath_wsi.model.libraries import segment_anything
from sampath_wsi.model.sam_encoder import decompose_attention
from sampath_wsi.model.vanilla_sam import HALF_THE_IMAGE, dots_of_instances, segment_by_dots

from .helpers import small_sam


@given(arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2, 7, 300])))
@settings(max_examples=60)
def test_one_dot_lies_inside_each_instance(instances):
    dots = dots_of_instances(instances)
    assert [instances[y, x] for x, y in dots] == sorted(set(instances.ravel()) - {0})


def test_a_dot_lies_in_the_middle_and_never_in_a_hole():
    disc = np.zeros((41, 61), np.uint8)
    y, x = np.mgrid[:41, :61]
    disc[(y - 20) ** 2 + (x - 30) ** 2 <= 15**2] = 4
    assert dots_of_instances(disc).tolist() == [[30, 20]]
    disc[(y - 20) ** 2 + (x - 30) ** 2 <= 8**2] = 0
    ((dot_x, dot_y),) = dots_of_instances(disc)
    assert disc[dot_y, dot_x] == 4


class FakePredictor:
    """Answers dot k with three masks, of which the second is the best: a square, or the whole image."""

    class transform:  # noqa: N801
        apply_coords = staticmethod(lambda dots, size: dots)

    device = torch.device("cpu")

    def __init__(self, sam: Any) -> None:
        self.whole_image_at = sam

    def set_image(self, image: np.ndarray) -> None:
        self.shape = image.shape[:2]

    def predict_torch(self, points: torch.Tensor, labels: torch.Tensor, multimask_output: bool) -> Any:
        assert multimask_output
        assert labels.tolist() == [[1]] * len(points)
        masks = torch.zeros(len(points), 3, *self.shape, dtype=torch.bool)
        masks[:, 0] = True
        for i, (x, y) in enumerate(points[:, 0].int().tolist()):
            if [x, y] == self.whole_image_at:
                masks[i, 1, :, : self.shape[1] // 2 + 1] = True
            masks[i, 1, y - 1 : y + 2, x - 1 : x + 2] = True
        return masks, torch.tensor([[0.1, 0.9, 0.5]]).expand(len(points), -1), None


def test_the_map_is_the_union_of_the_best_masks():
    segment = partial(segment_by_dots, predictor_of=FakePredictor)
    image, dots = np.zeros((20, 30, 3), np.uint8), np.array([[4, 5]] * 15 + [[25, 10], [15, 15]])
    expected = np.ones((20, 30), np.uint8)
    for x, y in dots:
        expected[y - 1 : y + 2, x - 1 : x + 2] = 2
    assert (segment(None, image, dots) == expected).all()
    assert (segment(None, image, dots, drop_larger_than=HALF_THE_IMAGE) == expected).all()
    flooded = segment([25, 10], image, dots)
    assert (flooded[:, :16] == 2).all()
    expected[9:12, 24:27] = 1
    assert (segment([25, 10], image, dots, drop_larger_than=HALF_THE_IMAGE) == expected).all()


def test_no_dots_give_background_without_running_sam():
    labels = segment_by_dots(None, np.zeros((4, 5, 3), np.uint8), dots_of_instances(np.zeros((4, 5), np.int32)))
    assert (labels == 1).all()
    assert labels.shape == (4, 5)


def test_sam_itself_takes_the_dots():
    sam = small_sam()
    decompose_attention(sam.image_encoder)
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    dots = np.array([[5, 5], [60, 40]])
    with torch.no_grad():
        labels = segment_by_dots(sam, image, dots)
    assert labels.shape == (50, 70)
    assert set(np.unique(labels)) <= {1, 2}
    masks = []
    predictor = segment_anything.SamPredictor(sam)
    predictor.set_image(image)
    for dot in dots:
        mask, iou, _ = predictor.predict(dot[None], np.array([1]), multimask_output=True)
        masks.append(mask[iou.argmax()])
    assert (labels == np.where(np.any(masks, axis=0), 2, 1)).all()
