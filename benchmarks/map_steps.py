"""Time of each step of stitching and vectorizing: both in this process, with a stopwatch around the steps."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from sampath_wsi.qupath import ObjectWriter
from sampath_wsi.stages.stitch import stage as stitch
from sampath_wsi.stages.vectorize import objects, outline, survey
from sampath_wsi.stages.vectorize.source import Source
from sampath_wsi.stores import pyramid
from sampath_wsi.stores.shards import Shards

STEPS: dict[str, list[tuple[str, Any, str]]] = {
    "stitch": [
        ("read", stitch._TileRows, "_read"),
        ("blend", stitch, "blend"),
        ("copy and round to bytes", stitch, "_as_stored"),
        ("argmax", stitch, "argmax_label"),
        ("tissue", stitch._Blocks, "_mask_to_tissue"),
        ("pyramid", pyramid.Pyramid, "_write_coarser"),
        ("write", Shards, "write"),
    ],
    "vectorize": [
        ("read", Source, "labels"),
        ("read", Source, "probabilities"),
        ("connected regions", survey, "connected_regions"),
        ("connected regions", outline, "connected_regions"),
        ("borders between regions", survey, "borders"),
        ("mean probabilities", survey, "region_sums"),
        ("join and clean", survey, "_join"),
        ("join and clean", survey, "merge_small"),
        ("trace outlines", outline, "trace"),
        ("simplify", outline, "simplify"),
        ("join outlines", outline.shapely, "coverage_union_all"),
        ("leave out vertices of chunk borders", outline, "finish"),
        ("round", objects, "rounded_for_qupath"),
        ("encode", objects, "encode_object"),
        ("write and compress", ObjectWriter, "write"),
    ],
}


class Stopwatch:
    """Times functions, each without the others that it calls; for one thread at a time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def around(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        # A plain function, so that it binds when it stands for a method.
        def timed(*args: Any, **options: Any) -> Any:
            self._switch()
            self._running.append(step)
            try:
                return function(*args, **options)
            finally:
                self._switch()
                self._running.pop()

        return timed

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


@contextmanager
def _timed_steps(watch: Stopwatch, stage: str) -> Iterator[None]:
    with ExitStack() as stack:
        for step, owner, name in STEPS[stage]:
            stack.enter_context(mock.patch.object(owner, name, watch.around(step, getattr(owner, name))))
        yield


def step_shares(probabilities: Path, segmentation: Path, out: Path) -> list[tuple[object, ...]]:
    """Rows of stage, step, seconds and share of the stage."""
    from sampath_wsi.stages.stitch.stage import stitch as stitch_store
    from sampath_wsi.stages.vectorize.stage import vectorize

    stages: dict[str, Callable[[], object]] = {
        "stitch": lambda: stitch_store(probabilities, segmentation, threads=1),
        "vectorize": lambda: vectorize(segmentation, out),
    }
    rows: list[tuple[object, ...]] = []
    for stage, run in stages.items():
        watch, begun = Stopwatch(), time.perf_counter()
        with _timed_steps(watch, stage):
            run()
        total = time.perf_counter() - begun
        spent = {**watch.seconds, "all else": total - sum(watch.seconds.values())}
        rows += [(stage, step, s, 100 * s / total) for step, s in sorted(spent.items(), key=lambda item: -item[1])]
        rows.append((stage, "together", total, 100.0))
    return rows
