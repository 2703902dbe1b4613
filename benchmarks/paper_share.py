"""Cost of stitching and vectorizing beside the paper's architecture (SAM ViT-B + HIPT), on the same tiles.

    python benchmarks/paper_share.py                  # a synthetic slide of 8000 x 6000 px
    python benchmarks/paper_share.py --slide my.svs

The model has the paper's size and random weights: it costs what the trained one costs, and its noisy map is the hardest
case for vectorizing. Goal: stitch and vectorize together under 5 % of the inference.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from pathlib import Path

from common import print_machine, print_table
from growth import run_stages, slide_or_synthetic
from paper_model import write_random_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, help="default: a synthetic slide")
    parser.add_argument("--keep", type=Path, help="keep the results in this folder")
    arguments = parser.parse_args()
    print_machine("torch", "zarr")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        slide = slide_or_synthetic(arguments.slide, folder)
        # In a process of its own: a child's peak memory counts what its parent held when it was started.
        writer = multiprocessing.get_context("spawn").Process(target=write_random_model, args=(folder / "model",))
        writer.start()
        writer.join()
        costs = run_stages(slide, arguments.keep or folder / "out", str(folder / "model"))
    rows = [
        (stage, cost.wall_s, cost.cpu_s, cost.peak_mb, f"{100 * cost.wall_s / costs['infer'].wall_s:.1f} %")
        for stage, cost in costs.items()
    ]
    print_table(("stage", "wall s", "CPU s", "peak MB", "share of inference"), rows)
    both = (costs["stitch"].wall_s + costs["vectorize"].wall_s) / costs["infer"].wall_s
    print(f"stitch + vectorize: {100 * both:.1f} % of the inference")


if __name__ == "__main__":
    main()
