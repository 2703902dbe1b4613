"""Second pass: the outlines of every chunk; objects that lie within one chunk are finished here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.stages.vectorize.chunks import ClassMap, Window
from sampath_wsi.stages.vectorize.drawing import Drawing, Feature, RegionTable, draw_regions
from sampath_wsi.stages.vectorize.polygons import Ring, Rings, canonical, crack_count, gather, simplify, trace
from sampath_wsi.stages.vectorize.regions import Ints, Regions, connected_regions
from sampath_wsi.stages.vectorize.seams import Chain, cut, drop_redundant, link


@dataclass(frozen=True)
class ChunkTask:
    """What the second pass must know of a chunk.

    Parameters
    ----------
    window
        Where it lies.
    region_of_piece
        ``(pieces,)`` the region on the whole map of each piece that the survey found.
    around
        The regions of the pixels around the chunk, -1 outside the map: the row above and the row below, with their
        corners (``width + 2``), the column on the left and on the right (``height``).
    table
        The rows of all regions in the chunk.
    """

    window: Window
    region_of_piece: NDArray[np.int32]
    around: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
    table: RegionTable


@dataclass(frozen=True)
class ChunkOutline:
    """What the second pass makes of a chunk.

    Parameters
    ----------
    features
        Finished objects (one object a region).
    rings
        Finished outlines, in pixels of the whole map (one object a class).
    chains, holes
        The parts of regions that go on in other chunks; ``holes`` are pairs of region and a ring that no seam cuts.
    open_area
        Pairs of each such region and how many of its pixels lie in this chunk.
    """

    features: list[Feature]
    rings: Rings | None
    chains: list[Chain]
    holes: list[tuple[int, Ring]]
    open_area: list[tuple[int, int]]


def outline_chunk(class_map: ClassMap, task: ChunkTask, tolerance_map_px: float, drawing: Drawing) -> ChunkOutline:
    """Outline, simplify and cut the regions of one chunk."""
    table = task.table
    if not drawing.makes_objects(table.label).any():
        return ChunkOutline([], None, [], [], [])
    pieces, region_of_pixel = _pieces(class_map, task)
    region_of_piece = region_of_pixel.ravel()[pieces.first].astype(np.int64)
    row = np.searchsorted(table.region, region_of_piece)
    rings = simplify(trace(pieces.image), tolerance_map_px)
    # All regions took part in simplifying, also those that make no object.
    rings = rings.where(drawing.makes_objects(table.label[row])[rings.region])
    if not len(rings):
        return ChunkOutline([], None, [], [], [])

    finished = (pieces.area == table.area_map_px[row])[rings.region]
    padded = _padded(region_of_pixel, task)
    open_area = _open_area(region_of_piece, pieces.area, np.unique(rings.region[~finished]))
    rings, seam = drop_redundant(Rings(rings.xy, rings.begin, region_of_piece[rings.region]), padded)
    chains, holes = _open_parts(rings, seam, ~finished, padded, task.window)
    if not finished.any():
        return ChunkOutline([], None, chains, holes, open_area)
    whole = rings.where(finished)
    corner = np.array([task.window.x, task.window.y], dtype=np.int32)
    whole = canonical(Rings(whole.xy + corner, whole.begin, whole.region))
    if drawing.objects == "classes":
        return ChunkOutline([], whole, chains, holes, open_area)
    features = draw_regions(whole, table.rows(np.unique(whole.region)), drawing)
    return ChunkOutline(features, None, chains, holes, open_area)


def _open_area(region_of_piece: Ints, area: Ints, pieces: Ints) -> list[tuple[int, int]]:
    regions, index = np.unique(region_of_piece[pieces], return_inverse=True)
    total = np.bincount(index, weights=area[pieces], minlength=len(regions)).astype(np.int64)
    return list(zip(regions.tolist(), total.tolist(), strict=True))


def _pieces(class_map: ClassMap, task: ChunkTask) -> tuple[Regions, NDArray[np.int32]]:
    """The pieces of a chunk after small ones were merged, and the region on the whole map of every pixel."""
    if len(task.region_of_piece) == 1:
        # All pixels are alike: there is nothing to read.
        image = np.full((task.window.height, task.window.width), task.region_of_piece[0], dtype=np.int32)
        return connected_regions(image), image
    surveyed = connected_regions(class_map.labels(task.window))
    region_of_pixel = task.region_of_piece[surveyed.image]
    if np.array_equal(task.table.rows(task.region_of_piece.astype(np.int64)).label, surveyed.label):
        return surveyed, region_of_pixel
    return connected_regions(region_of_pixel), region_of_pixel


def _padded(region_of_pixel: NDArray[np.int32], task: ChunkTask) -> NDArray[np.int32]:
    above, below, left, right = task.around
    padded = np.pad(region_of_pixel, 1)
    padded[1:-1, 0], padded[1:-1, -1] = left, right
    padded[0], padded[-1] = above, below
    return padded


def _open_parts(
    rings: Rings, seam: NDArray[np.bool_], wanted: NDArray[np.bool_], padded: NDArray[np.int32], window: Window
) -> tuple[list[Chain], list[tuple[int, Ring]]]:
    """The wanted rings cut at their seams, and those of them without any."""
    corner = np.array([window.x, window.y], dtype=np.int32)
    chains: list[Chain] = []
    holes: list[tuple[int, Ring]] = []
    on_map = rings.xy + corner
    # Only the ends of chains are ever asked whether they are nodes, and these lie at the ends of seams.
    ends = seam.copy()
    ends[rings.following[seam]] = True
    x, y = rings.xy[ends].astype(np.int64).T
    is_node = np.zeros(len(seam), dtype=np.bool_)
    is_node[ends] = crack_count(padded, x, y) > 2
    is_cut = np.logical_or.reduceat(seam, rings.begin[:-1])
    for k in np.flatnonzero(wanted).tolist():
        part = slice(rings.begin[k], rings.begin[k + 1])
        region = int(rings.region[k])
        if is_cut[k]:
            chains.extend(cut(on_map[part], seam[part], is_node[part], region))
        else:
            holes.append((region, on_map[part]))
    return chains, holes


def join_outline(region: int, chains: list[Chain], holes: list[Ring]) -> Rings:
    """The outline of a region from its parts in all chunks, in canonical order."""
    rings = gather((region, ring) for ring in [*link(chains), *holes])
    outer = int(np.count_nonzero(rings.twice_signed_area > 0))
    assert outer == 1, f"region {region} is connected and yet has {outer} outer rings"
    return rings
