"""OME-Zarr 0.5 metadata of a segmentation: axes, physical scale and place of every level, names and colours of labels.

Positions are of pixel centres in micrometres, and the centre of the slide's first level-0 pixel lies at 0.
"""

from __future__ import annotations

from typing import Any

import zarr

from sampath_wsi.geometry import TileGrid
from sampath_wsi.store import Provenance

VERSION = "0.5"
LABELS = "labels/classes"


def describe(group: zarr.Group, provenance: Provenance, classes: list[dict[str, Any]], levels: int) -> None:
    """Write the metadata of the image (``class, y, x``) and of its label image (``y, x``) into a segmentation store.

    Parameters
    ----------
    classes
        ``{"name": ..., "color": [r, g, b]}`` in the order of the channels.
    """
    grid = provenance.grid
    group.attrs["ome"] = {
        "version": VERSION,
        "multiscales": [_multiscale(provenance.slide["id"], grid, levels, channels=True)],
        "omero": {
            "channels": [
                {
                    "label": entry["name"],
                    "color": "".join(f"{value:02X}" for value in entry["color"]),
                    "active": True,
                    "window": {"min": 0, "max": 255, "start": 0, "end": 255},
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
                {"label-value": value, "rgba": [*entry["color"], 255]} for value, entry in enumerate(classes, start=1)
            ],
            "properties": [
                {"label-value": value, "class": entry["name"]} for value, entry in enumerate(classes, start=1)
            ],
            "source": {"image": "../../"},
        },
    }


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
    return {"name": name, "axes": axes, "datasets": datasets}
