"""The pictures of docs/qupath.md: what lies in the files for QuPath, drawn over the demonstration slide.

Run it at the top of the repository, after ``make demo``:

    python docs/images/draw_qupath.py data/demo/demo.tif results/slides/demo/segmentation.ome.zarr

These are drawings of the files by this script, in the colours and the way of QuPath; no screenshots of it.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import openslide
import shapely
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from shapely.plotting import patch_from_polygon

from sampath_wsi.options import VectorizeOptions
from sampath_wsi.stages.vectorize.stage import vectorize
from sampath_wsi.stages.vectorize.tiles import write_tile_objects

OUT = Path(__file__).parent
SHOWN_PX = 1000
DPI = 100


def features(path: Path) -> list[dict[str, Any]]:
    """The objects of a file."""
    return list(json.loads(gzip.decompress(path.read_bytes()))["features"])


def slide_axes(slide: openslide.OpenSlide, right_inch: float) -> Axes:
    """The slide, with room for a list at its right."""
    width, height = slide.dimensions
    picture = slide.get_thumbnail((SHOWN_PX, SHOWN_PX))
    size = picture.width / DPI, picture.height / DPI
    figure = plt.figure(figsize=(size[0] + right_inch, size[1]), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, size[0] / (size[0] + right_inch), 1))
    axes.imshow(picture, extent=(0, width, height, 0))
    axes.set_axis_off()
    return axes


def draw(axes: Axes, feature: dict[str, Any], color: Any, fill: float, line: float = 1.6) -> None:
    """An object's outline, and its area in the same colour."""
    shape = shapely.geometry.shape(feature["geometry"])
    axes.add_patch(patch_from_polygon(shape, facecolor=(*color, fill), edgecolor="none"))
    axes.add_patch(patch_from_polygon(shape, facecolor="none", edgecolor=color, linewidth=line))


def color_of(feature: dict[str, Any]) -> tuple[float, ...]:
    """The colour of its class, from 0 to 1."""
    return tuple(v / 255 for v in feature["properties"]["classification"]["color"])


def draw_regions(slide: openslide.OpenSlide, objects: list[dict[str, Any]]) -> None:
    """All objects, and beside them the list of classes with the number of objects."""
    axes = slide_axes(slide, 2.6)
    for feature in objects:
        draw(axes, feature, color_of(feature), 0.25)
    classes = {f["properties"]["classification"]["name"]: color_of(f) for f in objects}
    for row, (name, color) in enumerate(classes.items()):
        count = sum(f["properties"]["classification"]["name"] == name for f in objects)
        y = 0.95 - 0.05 * row
        axes.figure.text(0.815, y, "■", color=color, fontsize=18, va="center")
        axes.figure.text(0.84, y, f"{name} ({count})", fontsize=13, va="center")
    save(axes, "qupath-regions.jpg")


def draw_pieces(slide: openslide.OpenSlide, objects: list[dict[str, Any]]) -> None:
    """The pieces of the object that was cut into most."""
    pieces: dict[str, list[dict[str, Any]]] = {}
    for feature in objects:
        name, cut, _ = feature["properties"]["name"].partition(", piece ")
        if cut:
            pieces.setdefault(name, []).append(feature)
    largest = max(pieces.values(), key=len)
    axes = slide_axes(slide, 0)
    colors = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for k, feature in enumerate(largest):
        draw(axes, feature, colors[k % len(colors)], 0.35)
        point = shapely.geometry.shape(feature["geometry"]).representative_point()
        text = feature["properties"]["name"].partition(", ")[2]
        axes.text(point.x, point.y, text, fontsize=11, ha="center", bbox={"facecolor": "white", "alpha": 0.8, "pad": 2})
    save(axes, "qupath-pieces.jpg")


def draw_tiles(slide: openslide.OpenSlide, tiles: list[dict[str, Any]], measurement: str) -> None:
    """Tiles in the colours of a measurement, as a measurement map shows them."""
    axes = slide_axes(slide, 1.2)
    viridis = mpl.colormaps["viridis"]
    for feature in tiles:
        draw(axes, feature, viridis(feature["properties"]["measurements"][measurement])[:3], 0.6, line=0.6)
    bar = axes.figure.add_axes((0.91, 0.1, 0.02, 0.8))
    mpl.colorbar.ColorbarBase(bar, cmap=viridis, label=measurement)
    save(axes, "qupath-tiles.jpg")


def save(axes: Axes, name: str) -> None:
    """Write a picture."""
    axes.figure.savefig(OUT / name, dpi=DPI, pil_kwargs={"quality": 82})
    plt.close(axes.figure)


def main(slide_path: str, segmentation: str) -> None:
    """Draw all pictures."""
    slide = openslide.OpenSlide(slide_path)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "objects.geojson.gz"
        draw_regions(slide, features(vectorize(Path(segmentation), out).path))
        draw_pieces(slide, features(vectorize(Path(segmentation), out, VectorizeOptions(max_vertices=500)).path))
        draw_tiles(slide, features(write_tile_objects(Path(segmentation), out).path), "Prob: Tumor")


if __name__ == "__main__":
    main(*sys.argv[1:])
