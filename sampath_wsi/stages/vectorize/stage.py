"""Stage 4: the class map of a segmentation store -> GeoJSON for QuPath."""

from __future__ import annotations

from pathlib import Path

from sampath_wsi.progress import Progress, stepper
from sampath_wsi.qupath import ObjectWriter
from sampath_wsi.stages.vectorize.core import Cleaning, draw_map
from sampath_wsi.stages.vectorize.options import VectorizeOptions
from sampath_wsi.stages.vectorize.result import VectorizeResult, describe_result
from sampath_wsi.stages.vectorize.source import open_source
from sampath_wsi.stages.vectorize.spool import Spool

CHUNK_MAP_PX = 512


def vectorize(
    segmentation_path: Path,
    out: Path,
    options: VectorizeOptions | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> VectorizeResult:
    """Turn the class map of a segmentation store into polygons that QuPath opens.

    The polygons of all classes fit each other without gaps and overlaps. Classes whose name ends in ``*`` make no
    objects.

    Parameters
    ----------
    segmentation_path
        A finished ``segmentation.ome.zarr``.
    out
        The file to write: ``.geojson.gz``, ``.geojson`` or ``.json``; put in place when whole.
    workers
        Processes.

    Raises
    ------
    ConfigError
        If ``out`` has another name.
    StoreError
        If there is no finished segmentation store, or it is damaged, or another process is writing ``out``.
    """
    options, out = options or VectorizeOptions(), Path(out)
    source = open_source(Path(segmentation_path), options)
    class_map, drawing = source.class_map, source.drawing
    px_um2 = drawing.mpp_map**2
    cleaning = Cleaning(
        tolerance_map_px=options.tolerance_um_at(drawing.mpp_map) / drawing.mpp_map,
        min_area_map_px=options.min_area_um2 / px_um2,
        min_hole_map_px=options.min_hole_um2 / px_um2,
    )
    writer = ObjectWriter(out)
    with writer, Spool(out.parent) as spool:
        statistics = draw_map(
            class_map, drawing, cleaning, spool, chunk_map_px=CHUNK_MAP_PX, workers=workers, progress=progress
        )
        step = stepper(progress, sum(statistics.objects.values()), "objects written")
        for feature in spool:
            writer.write(feature)
            step()
    return describe_result(out, writer.json_bytes, statistics, drawing, options, class_map.shape)
