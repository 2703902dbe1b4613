"""Prints as JSON what napari makes of a store. Run by tests/test_viewers.py with a Python that has napari."""

from __future__ import annotations

import json
import sys

from napari.layers import Layer
from napari_ome_zarr import napari_get_reader


def main(path: str, corner_um: list[float]) -> None:
    layers = []
    for levels, look, kind in napari_get_reader(path)(path):
        channel_axis = look.pop("channel_axis", None)
        if channel_axis is None:
            layers.append(Layer.create(levels, look, kind))
            continue
        # As napari's viewer does it: a layer a channel, each with its part of what is said for all.
        each = ("name", "contrast_limits", "colormap", "visible")
        for index in range(levels[0].shape[channel_axis]):
            own = {key: value[index] if key in each else value for key, value in look.items()}
            layers.append(Layer.create([level[index] for level in levels], own, kind))
    # What is printed last is read.
    print(json.dumps([describe(layer, corner_um) for layer in layers]))


def describe(layer: Layer, corner_um: list[float]) -> dict[str, object]:
    """Name, colours and place of a layer that was put in its place as docs/viewers.md says."""
    layer.translate = corner_um
    found: dict[str, object] = {
        "kind": type(layer).__name__,
        "name": layer.name,
        "units": [str(unit) for unit in layer.units],
        "corners_um": [list(layer.data_to_world(corner)) for corner in ((0, 0), (599, 499))],
    }
    if found["kind"] == "Labels":
        colours = {int(value): list(map(float, layer.colormap.map(value)[:4])) for value in (1, 2, 3)}
        return {**found, "classes": list(layer.properties["class"]), "colours": colours}
    brightest = list(map(float, layer.colormap.colors[-1][:3]))
    return {**found, "limits": list(layer.contrast_limits), "brightest": brightest}


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
