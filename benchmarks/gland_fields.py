r"""Slides of joined GlaS images: some images of GlaS are the quadrants of one field, and join pixel on pixel.

    python benchmarks/gland_fields.py path/to/glas fields --split testA
    snakemake --cores 2 --config slides=fields/slides.tsv model=glas-tiny output=fields/results \
        tile='{min_tissue_hole: 50000}' vectorize='{min_area: 600, min_hole: 600}'
    python benchmarks/gland_fields.py path/to/glas fields --scores

The first line writes slides, true class maps and a sample sheet, from a folder with samples.csv (name, split, field,
quadrant), images/ and masks/; the last prints, for every field, the gland's Dice and how much of the glands the tissue
mask kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import tifffile
import zarr
from common import print_table
from numpy.typing import NDArray
from PIL import Image

MPP = 0.62
QUADRANTS = (("tl", "tr"), ("bl", "br"))


def read_fields(glas: Path, split: str) -> dict[str, dict[str, str]]:
    """Names of a split's images by field and quadrant; whole fields only."""
    fields: dict[str, dict[str, str]] = {}
    with (glas / "samples.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["field"] and row["split"] == split:
                fields.setdefault(row["field"], {})[row["quadrant"]] = row["name"]
    return {field: names for field, names in sorted(fields.items()) if len(names) == 4}


def join(glas: Path, names: dict[str, str], folder: str) -> NDArray[np.uint8]:
    """The four pictures, or masks, of a field as one."""
    rows = [[np.asarray(Image.open(glas / folder / f"{names[q]}.png")) for q in row] for row in QUADRANTS]
    return np.vstack([np.hstack(row) for row in rows])


def write_slides(glas: Path, out: Path, split: str) -> Path:
    """Slides (tiled TIFF, lossless), their truth (1 background, 2 gland) and the sample sheet."""
    out.mkdir(parents=True, exist_ok=True)
    lines = ["slide\tpath\ttruth"]
    for field, names in read_fields(glas, split).items():
        slide, truth = out / f"{field}.tif", out / f"{field}.truth.tif"
        resolution = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}
        rgb = join(glas, names, "images")
        tifffile.imwrite(slide, rgb, tile=(256, 256), compression="zlib", photometric="rgb", **resolution)
        tifffile.imwrite(truth, (join(glas, names, "masks") > 0).astype(np.uint8) + 1, compression="zlib")
        lines.append(f"{field}\t{slide}\t{truth}")
    sheet = out / "slides.tsv"
    sheet.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sheet


def print_scores(out: Path) -> None:
    """The gland's Dice on every field that the workflow has scored, and how much of the glands it took for tissue."""
    rows: list[tuple[object, ...]] = []
    for path in sorted((out / "results" / "slides").glob("*/evaluation.json")):
        evaluation = json.loads(path.read_text())
        gland = tifffile.imread(evaluation["truth"]) == 2
        labels = zarr.open_array(path.parent / "segmentation.ome.zarr" / "labels" / "classes" / "0", mode="r")[:]
        tissue = np.asarray(Image.fromarray(np.asarray(labels)).resize(gland.shape[::-1], Image.Resampling.NEAREST)) > 0
        rows.append((path.parent.name, evaluation["classes"]["Gland"]["dice"], 100 * tissue[gland].mean()))
    if not rows:
        sys.exit(f"{out}: no field is scored yet; run the workflow on its slides.tsv first (--help)")
    mean = [float(np.mean([row[column] for row in rows])) for column in (1, 2)]
    print_table(("field", "gland Dice", "glands in the tissue mask %"), [*rows, (f"mean of {len(rows)}", *mean)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glas", type=Path, help="folder of GlaS")
    parser.add_argument("out", type=Path, help="folder of the slides, their sheet and the workflow's results")
    parser.add_argument("--split", default="testA", help="whose images are joined")
    parser.add_argument("--scores", action="store_true", help="print what the workflow scored")
    arguments = parser.parse_args()
    if arguments.scores:
        print_scores(arguments.out)
    else:
        print(write_slides(arguments.glas, arguments.out.resolve(), arguments.split))


if __name__ == "__main__":
    main()
