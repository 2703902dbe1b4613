"""Makes the results of a cohort as the workflow leaves them, of any number of slides, without running it."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.classes import TissueClass
from sampath_wsi.files import write_json
from sampath_wsi.runs.sheet import SheetRow
from sampath_wsi.stages.report import label_picture
from sampath_wsi.synthetic.noise import smooth_noise

CLASSES = (
    TissueClass(name="Tumor", color=(200, 0, 0)),
    TissueClass(name="Stroma", color=(150, 200, 150)),
    TissueClass(name="Immune cells", color=(160, 90, 160)),
    TissueClass(name="Necrosis", color=(50, 50, 50)),
    TissueClass(name="Other", color=(250, 200, 0)),
)
_STAINS = ((150, 80, 140), (225, 160, 195), (90, 60, 130), (190, 150, 170), (240, 210, 225))
_SIZES_PX = ((960, 700), (640, 960), (960, 420))
_PICTURES = ("thumbnail.jpg", "thumbnail-classes.png")
_WARNING = "removing small islands and holes changed the class of 1.5% of the map: the prediction is noisy."


def make_cohort(folder: Path, kinds: Sequence[str], extra: dict[str, str] | None = None) -> list[SheetRow]:
    """A slide of each kind (done, warned, empty, failed, killed, missing) with its results and logs in ``folder``."""
    pictures = [folder / ".pictures" / str(number) for number in range(len(_SIZES_PX))]
    for number, place in enumerate(pictures):
        place.mkdir(parents=True)
        for name, content in zip(_PICTURES, _draw(number), strict=True):
            (place / name).write_bytes(content)
    rows = []
    for number, kind in enumerate(kinds):
        row = SheetRow(slide=f"slide-{number + 1:03}", path="a.tif", truth="a.truth.tif", extra=extra or {})
        _make_slide(folder, row.slide, kind, number, pictures[number % len(pictures)])
        rows.append(row)
    return rows


def _make_slide(folder: Path, slide: str, kind: str, number: int, pictures: Path) -> None:
    if kind == "missing":
        return
    results, logs = folder / "slides" / slide, folder / "logs" / slide
    logs.mkdir(parents=True)
    (logs / "tile.log").write_text("tile\n")
    record: dict[str, Any] = {"stage": "tile", "status": "ok", "seconds": 1.5}
    if kind == "failed":
        record = {"stage": "tile", "status": "failed", "error": f"{slide}.svs: the file is empty. Copy it again."}
    if kind == "killed":
        record = {"stage": "tile", "status": "running"}
    write_json(results / "run" / "tile.json", record)
    if kind in ("failed", "killed"):
        return
    write_json(results / "summary.json", summary(slide, kind, number))
    (results / "segmentation.ome.zarr").mkdir()
    (results / "segmentation.geojson.gz").write_bytes(b"")
    for name in _PICTURES:
        os.link(pictures / name, results / name)
    os.link(pictures / "thumbnail.jpg", results / "overlay.png")


def summary(slide: str, kind: str = "done", number: int = 0) -> dict[str, Any]:
    """A ``summary.json`` with shares that differ from slide to slide."""
    tissue = 0.0 if kind == "empty" else 4.0 + number % 7
    shares = np.random.default_rng(number).dirichlet((4, 3, 1, 0.6, 0.4)) if tissue else np.zeros(len(CLASSES))
    return {
        "slide": slide,
        "file": f"{slide}.svs",
        "status": "ok",
        "mpp": [0.2325, 0.2325],
        "mpp_source": "metadata",
        "model": "demo",
        "weights_sha256": "69f934ed" * 8,
        "tiles": 0 if kind == "empty" else 40 + number,
        "tissue_mm2": tissue,
        "classes": {
            entry.name: {"area_mm2": tissue * share, "percent": 100 * share, "color": entry.color}
            for entry, share in zip(CLASSES, shares.tolist(), strict=True)
        },
        "objects": {"Tumor": 12, "Stroma": 30},
        "warnings": {"empty": ["no tissue was found"], "warned": [_WARNING]}.get(kind, []),
        "device": "cuda:0 (NVIDIA A100)",
        "seconds": {"tile": 12.5, "infer": 61.0 + number, "stitch": 3.25, "vectorize": 8.0},
        "version": "0.1.0",
        "software": "sampath-wsi 0.1.0, Python 3.11.2, torch 2.13.0",
    }


@cache
def _draw(number: int) -> tuple[bytes, bytes]:
    """A thumbnail (JPEG) of tissue of all classes, and the classes on it (PNG), at 8 um/px."""
    width, height = _SIZES_PX[number]
    x, y = np.arange(width) * 8.0, np.arange(height) * 8.0
    fields = np.stack([smooth_noise(x, y, 900, 10 * number + k) - 0.25 * k for k in range(len(CLASSES))])
    labels = fields.argmax(0).astype(np.uint8) + 1
    round_x, round_y = (2 * x / x[-1] - 1) ** 2, (2 * y / y[-1] - 1) ** 2
    labels[round_x + round_y[:, None] + 0.15 * smooth_noise(x, y, 1500, number) > 0.75] = 0
    stains = np.array([(243, 242, 244), *_STAINS], np.float64)
    grain = 22 * smooth_noise(x, y, 24, number + 5) * (labels > 0)
    rgb: NDArray[np.uint8] = np.clip(stains[labels] + grain[..., None], 0, 255).astype(np.uint8)
    picture, layer = io.BytesIO(), io.BytesIO()
    Image.fromarray(rgb).save(picture, "JPEG", quality=85)
    label_picture(labels, CLASSES, (width, height)).save(layer, "PNG", dpi=(25400 / 8, 25400 / 8))
    return picture.getvalue(), layer.getvalue()
