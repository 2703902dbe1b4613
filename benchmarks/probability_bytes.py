"""Share of labels that change because probabilities are stored as bytes, not float32; the limit is 0.1 %.

python benchmarks/probability_bytes.py            # the demo model on a synthetic slide
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import measure, print_machine
from growth import slide_or_synthetic
from zarr import open_array

from sampath_wsi.model.bundle import load_bundle
from sampath_wsi.probability import argmax_label, to_bytes
from sampath_wsi.stages.stitch.blend import blend
from sampath_wsi.stores.store import open_store, read_array


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--slide", type=Path, help="default: a synthetic slide")
    arguments = parser.parse_args()
    print_machine("torch", "zarr")
    bundle = load_bundle(arguments.model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        slide = slide_or_synthetic(arguments.slide, folder)
        measure("tile", slide, "--out", folder / "tiles.zarr", "--model", arguments.model)
        group, made_by = open_store(folder / "tiles.zarr", "tiles")
        rgb, grid = read_array(group, "rgb"), made_by.grid
        shape = (len(grid.tiles), len(bundle.card.classes), grid.tile_map_px, grid.tile_map_px)
        chunk = (1, *shape[1:])
        exact = open_array(folder / "exact.zarr", mode="w", shape=shape, chunks=chunk, dtype="f4")
        stored = open_array(folder / "bytes.zarr", mode="w", shape=shape, chunks=chunk, dtype="u1")
        with torch.inference_mode():
            for k in range(len(grid.tiles)):
                pixels = torch.from_numpy(np.asarray(rgb[k : k + 1])).permute(0, 3, 1, 2).float() / 255
                probability = torch.softmax(bundle.model(pixels)[0][:, 1:], 1).numpy()
                exact[k : k + 1], stored[k : k + 1] = probability, to_bytes(probability, 1)
        width, height = grid.map_size_map_px
        labels = [argmax_label(blend(array, grid, 0, 0, width, height)) for array in (exact, stored)]
    pixels_with_tiles = labels[0] > 0
    changed = (labels[0] != labels[1])[pixels_with_tiles].mean()
    print(f"{100 * changed:.4f} % of {pixels_with_tiles.sum()} labels change (limit 0.1 %)")


if __name__ == "__main__":
    main()
