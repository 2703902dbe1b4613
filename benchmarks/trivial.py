"""A model that costs nearly nothing, and the stages with it: what is left is the cost of everything around a model.

Average-pool by 4, a 31 x 31 box blur, a 1 x 1 convolution to five classes: the mean colour around a pixel tells the
class. The weights were fitted to the true classes of the synthetic slides (92 % of the pixels).

    python benchmarks/trivial.py STAGE slide.tif folder     # one stage, as a process of its own
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sampath_wsi.model.card import ModelSpec

STAGES = ("tile", "infer", "stitch", "vectorize")
MPP, TILE_PX, OVERLAP_PX, STRIDE = 0.5, 1024, 128, 4
CLASSES = (
    {"name": "Tumor", "color": [200, 0, 0]},
    {"name": "Stroma", "color": [150, 200, 150]},
    {"name": "Immune cells", "color": [160, 90, 160]},
    {"name": "Necrosis", "color": [50, 50, 50]},
    {"name": "Other", "color": [255, 200, 0]},
)
_BATCH = 1  # as the workflow has it on a CPU
# Of red, green and blue in [0, 1], and the constant term, for each class.
_WEIGHT = ((-19.8, -32.4, 26.6), (0.0, 42.2, 23.7), (-35.2, 24.4, -31.6), (18.1, -23.3, 28.1), (36.9, -10.9, -46.8))
_BIAS = (12.46, -38.13, 32.91, -18.41, 11.17)


def trivial_model() -> nn.Module:
    """``(B, 3, H, W)`` RGB in [0, 1] -> logits ``(B, 5, H / 4, W / 4)``."""
    import torch
    from torch import nn

    last = nn.Conv2d(3, len(CLASSES), 1)
    with torch.no_grad():
        last.weight.copy_(torch.tensor(_WEIGHT)[:, :, None, None])
        last.bias.copy_(torch.tensor(_BIAS))
    # The box blur as a row and a column: the same, and cheap.
    across = nn.AvgPool2d((1, 31), 1, (0, 15), count_include_pad=False)
    down = nn.AvgPool2d((31, 1), 1, (15, 0), count_include_pad=False)
    return nn.Sequential(nn.AvgPool2d(STRIDE), across, down, last).eval()


class TrivialPredictor:
    """The model as stage 2 wants it."""

    def __init__(self) -> None:
        self._model = trivial_model()

    def __call__(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        import numpy as np
        import torch

        from sampath_wsi.probability import to_bytes

        with torch.inference_mode():
            pixels = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255
            probability = to_bytes(torch.softmax(self._model(pixels), 1), 1).numpy()
        return probability, np.ones(probability.shape[:2], np.float32)


def model_spec() -> ModelSpec:
    """Return the model as the stages see it."""
    from sampath_wsi.classes import TissueClass
    from sampath_wsi.model.card import ModelSpec

    classes = tuple(TissueClass.model_validate(entry) for entry in CLASSES)
    return ModelSpec("trivial", "0" * 64, classes, MPP, TILE_PX, STRIDE, OVERLAP_PX)


def tile(slide: Path, folder: Path) -> None:
    from sampath_wsi.slides import inspect_slide
    from sampath_wsi.stages.tile import TileRequest, tile_slide

    spec = model_spec()
    begin_work()
    tile_slide(TileRequest(inspect_slide(slide), "slide", spec), folder / "tiles.zarr")


def infer(slide: Path, folder: Path) -> None:
    import torch  # noqa: F401 (its import is start-up)

    from sampath_wsi.stages.infer.stage import ReadyModel
    from sampath_wsi.stages.infer.stage import infer as infer_store
    from sampath_wsi.stores.provenance import Computed

    spec = model_spec()
    begin_work()
    how = Computed(precision="fp32", batch=_BATCH)
    model = ReadyModel(spec, "cpu", "auto", how, lambda precision: TrivialPredictor())
    infer_store(folder / "tiles.zarr", folder / "probabilities.zarr", model)


def stitch(slide: Path, folder: Path) -> None:
    from sampath_wsi.stages.stitch.stage import stitch as stitch_store

    begin_work()
    stitch_store(folder / "probabilities.zarr", folder / "segmentation.ome.zarr", threads=2)


def vectorize(slide: Path, folder: Path) -> None:
    from sampath_wsi.stages.vectorize.stage import vectorize as vectorize_store

    begin_work()
    vectorize_store(folder / "segmentation.ome.zarr", folder / "segmentation.geojson.gz")


_ready = 0.0


def begin_work() -> None:
    """Note that everything is imported: the work begins."""
    global _ready
    _ready = time.monotonic()


def main() -> None:
    stage, slide, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    {"tile": tile, "infer": infer, "stitch": stitch, "vectorize": vectorize}[stage](slide, folder)
    work = {"work_s": time.monotonic() - _ready}
    (folder / f"{stage}.json").write_text(json.dumps(work))


if __name__ == "__main__":
    main()
