"""OME-Zarr 0.5 metadata of a segmentation: axes, physical scale and place of every level, names and colours of labels.

Positions are of pixel centres in micrometres, and the centre of the slide's first level-0 pixel lies at 0. A change of
what is written here raises the version of the stage 'stitch'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zarr

from sampath_wsi.geometry import TileGrid
from sampath_wsi.probability import SCALE
from sampath_wsi.stores.provenance import Provenance

VERSION = "0.5"
LABELS = "labels/classes"


_DARKEST_SEEN = 160


def describe(group: zarr.Group, provenance: Provenance, levels: int, *, float32: bool) -> None:
    """Write the metadata of the image (``class, y, x``) and of its label image (``y, x``) into a segmentation store.

    Parameters
    ----------
    float32
        Whether probabilities are stored as floats, rather than bytes.
    """
    grid, classes = provenance.grid, provenance.classes
    most = 1 if float32 else SCALE
    group.attrs["ome"] = {
        "version": VERSION,
        "multiscales": [_multiscale(provenance.slide.id, grid, levels, channels=True)],
        "omero": {
            "channels": [
                {
                    "label": entry.name,
                    "color": "".join(f"{value:02X}" for value in bright(entry.color)),
                    "active": True,
                    "window": {"min": 0, "max": most, "start": 0, "end": most},
                }
                for entry in classes
            ]
        },
    }
    group.require_group("labels").attrs["ome"] = {"version": VERSION, "labels": ["classes"]}
    group.require_group(LABELS).attrs["ome"] = {
        "version": VERSION,
        "multiscales": [_multiscale("classes", grid, levels, channels=False)],
        "image-label": {
            "colors": [
                {"label-value": value, "rgba": [*entry.color, 255]} for value, entry in enumerate(classes, start=1)
            ],
            "properties": [{"label-value": value, "class": entry.name} for value, entry in enumerate(classes, start=1)],
            "source": {"image": "../../"},
        },
    }


def bright(color: Sequence[int]) -> tuple[int, int, int]:
    """A class's colour as it stands for probability 1: the same, unless it is too dark to be seen on black."""
    red, green, blue = (round(value * max(1, _DARKEST_SEEN / max(*color, 1))) for value in color)
    return (red, green, blue) if any(color) else (_DARKEST_SEEN,) * 3


def _multiscale(name: str, grid: TileGrid, levels: int, *, channels: bool) -> dict[str, Any]:
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if channels else []
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    one, zero = ([1.0], [0.0]) if channels else ([], [])
    datasets = []
    for level in range(levels):
        px_um = grid.mpp_map * 2**level
        place = [
            grid.region_y_level0_px * grid.mpp_y + (px_um - grid.mpp_y) / 2,
            grid.region_x_level0_px * grid.mpp_x + (px_um - grid.mpp_x) / 2,
        ]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*one, px_um, px_um]},
                    {"type": "translation", "translation": [*zero, *place]},
                ],
            }
        )
    return {"name": name, "axes": axes, "datasets": datasets, "type": "mean" if channels else "mode"}
