"""What the record of each stage says (:mod:`sampath_wsi.runs.record`): JSON objects for summaries and the cohort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampath_wsi.model.ready import ReadyModel
    from sampath_wsi.slides import SlideInfo
    from sampath_wsi.stages.infer.stage import InferResult
    from sampath_wsi.stages.stitch.stage import StitchResult
    from sampath_wsi.stages.tile import TileResult
    from sampath_wsi.stages.vectorize.stage import VectorizeResult


def tile_facts(info: SlideInfo, result: TileResult) -> dict[str, Any]:
    """Of stage 1."""
    return {
        "tiles": result.tiles,
        "grid": [result.grid.rows, result.grid.columns],
        "mpp": list(info.mpp),
        "mpp_source": info.mpp_source,
        "warnings": list(result.warnings),
    }


def infer_facts(model: ReadyModel, result: InferResult) -> dict[str, Any]:
    """Of stage 2."""
    return {
        "tiles": result.tiles,
        "computed": result.computed,
        "device": model.device,
        "precision": model.precision,
        "device_busy": None if result.busy is None else round(result.busy, 4),
    }


def stitch_facts(result: StitchResult) -> dict[str, Any]:
    """Of stage 3."""
    return {"map_size_map_px": list(result.map_size_map_px), "levels": result.levels}


def vectorize_facts(result: VectorizeResult) -> dict[str, Any]:
    """Of stage 4."""
    return {
        "objects": result.objects,
        "cut_objects": result.cut_objects,
        "pieces": result.pieces,
        "vertices": result.n_vertices,
        "json_bytes": result.json_bytes,
        "changed_by_cleaning": result.changed_fraction,
        "frame": result.frame,
        "warnings": list(result.warnings),
    }
