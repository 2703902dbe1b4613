"""From outlines on the lattice to features for QuPath: frame, measurements, names and identifiers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal
from uuid import UUID, uuid5

import numpy as np
import shapely
from numpy.typing import NDArray

from sampath_wsi.classes import TissueClass
from sampath_wsi.qupath import ObjectType, encode_object, rounded_for_qupath
from sampath_wsi.stages.vectorize.pieces import Lattice, Piece, cut
from sampath_wsi.stages.vectorize.polygons import Rings, to_polygons
from sampath_wsi.stages.vectorize.regions import Ints

Objects = Literal["regions", "classes"]
_NAMESPACE = UUID("7d3b8c52-6f0f-4b0e-9d57-0f6f3a3a9c11")
_AREA, _WHOLE_AREA = "Area µm^2", "Area of all pieces µm^2"


@dataclass(frozen=True)
class RegionTable:
    """What is known of some regions.

    Parameters
    ----------
    region
        ``(n,)`` numbers on the whole map, ascending; by first pixel in reading order.
    label, area_map_px, first_map_px
        ``(n,)``; ``first_map_px`` in the flattened map.
    ordinal
        ``(n,)`` 1 for the first region of its class, and so on.
    probability_sum, classed_map_px
        ``(n, class)`` (None without probabilities) and ``(n,)``: sums over, and number of, the pixels with a class.
    """

    region: Ints
    label: NDArray[np.uint8]
    area_map_px: Ints
    first_map_px: Ints
    ordinal: Ints
    classed_map_px: Ints
    probability_sum: NDArray[np.float64] | None

    def rows(self, region: Ints) -> RegionTable:
        """The rows of some of the regions (ascending)."""
        row = np.searchsorted(self.region, region)
        sums = self.probability_sum
        return RegionTable(
            region=region,
            label=self.label[row],
            area_map_px=self.area_map_px[row],
            first_map_px=self.first_map_px[row],
            ordinal=self.ordinal[row],
            classed_map_px=self.classed_map_px[row],
            probability_sum=None if sums is None else sums[row],
        )

    def total(self) -> RegionTable:
        """One row for all regions together, which have the same class."""
        sums = self.probability_sum
        return RegionTable(
            region=self.region[:1],
            label=self.label[:1],
            area_map_px=self.area_map_px.sum(keepdims=True),
            first_map_px=self.first_map_px[:1],
            ordinal=np.zeros(1, np.int64),
            classed_map_px=self.classed_map_px.sum(keepdims=True),
            probability_sum=None if sums is None else sums.sum(axis=0, keepdims=True),
        )


@dataclass(frozen=True)
class Drawing:
    """How regions become objects.

    Parameters
    ----------
    classes
        Class ``i`` has label ``i + 1``.
    fingerprint
        Of the slide: part of the objects' identifiers.
    scale_level0_px_per_map_px, offset_level0_px
        (x, y): a point of the map in the frame of the file is ``map * scale + offset``.
    mpp_map
        Micrometres in a map pixel.
    map_width_map_px
        Width of the whole map.
    object_type, objects
        Annotations or detections; one a region, or one a class.
    far_corner_level0_px
        (x, y) in the frame of the file, beyond which nothing is drawn: the last pixels of the map may reach a little
        past the slide.
    max_vertices
        An object of more is cut into pieces; 0 for no limit.
    """

    classes: tuple[TissueClass, ...]
    fingerprint: str
    scale_level0_px_per_map_px: tuple[float, float]
    offset_level0_px: tuple[float, float]
    mpp_map: float
    map_width_map_px: int
    object_type: ObjectType
    objects: Objects
    far_corner_level0_px: tuple[float, float] = (math.inf, math.inf)
    max_vertices: int = 0

    def makes_objects(self, label: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """For label values: whether their regions become objects."""
        table = np.array([False, *(not tissue_class.ignored for tissue_class in self.classes)])
        return table[label]


@dataclass(frozen=True)
class Feature:
    """An encoded object, with what the statistics need of it; ``piece`` counts from 1, and is 0 for a whole one."""

    order: int
    label: int
    n_vertices: int
    data: bytes
    piece: int = 0


def draw_regions(rings: Rings, table: RegionTable, drawing: Drawing) -> list[Feature]:
    """One object a region.

    Parameters
    ----------
    rings
        In canonical order, in pixels of the whole map, at least one.
    table
        The rows of exactly the regions of the rings.
    """
    return _encode(_level0_polygons(rings, drawing), table, drawing)


def draw_class(rings: Rings, table: RegionTable, drawing: Drawing) -> list[Feature]:
    """One object for all regions, which have the same class; the rest as for :func:`draw_regions`."""
    whole = np.empty(1, dtype=object)
    whole[0] = shapely.multipolygons(shapely.get_parts(_level0_polygons(rings, drawing)))
    return _encode(whole, table.total(), drawing)


def _level0_polygons(rings: Rings, drawing: Drawing) -> NDArray[np.object_]:
    xy: NDArray[np.float64] = np.multiply(rings.xy, drawing.scale_level0_px_per_map_px) + drawing.offset_level0_px
    polygons = to_polygons(rings, xy)
    bounds = shapely.bounds(polygons)
    right, bottom = drawing.far_corner_level0_px
    for k in np.flatnonzero((bounds[:, 2] > right) | (bounds[:, 3] > bottom)).tolist():
        left, top = bounds[k, :2].tolist()
        inside = shapely.intersection(polygons[k], shapely.box(left, top, right, bottom))
        # Where an outline only touches the edge, lines and points are left too.
        polygons[k] = shapely.MultiPolygon([p for p in shapely.get_parts(inside) if isinstance(p, shapely.Polygon)])
    return polygons


def _encode(polygons: NDArray[np.object_], table: RegionTable, drawing: Drawing) -> list[Feature]:
    features: list[Feature] = []
    described = zip(
        _pieces(polygons, drawing),
        table.region.tolist(),
        table.label.tolist(),
        table.ordinal.tolist(),
        table.first_map_px.tolist(),
        measurements(table, drawing),
        strict=True,
    )
    for pieces, region, label, ordinal, first_map_px, measured in described:
        tissue_class = drawing.classes[label - 1]
        whole_px2 = sum(piece.area_px2 for piece in pieces)
        for number, piece in enumerate(pieces, 1):
            name = f"{tissue_class.name} {ordinal}" if ordinal else tissue_class.name
            own = measured
            if piece.place:
                name += f", piece {number} of {len(pieces)}"
                area_um2 = round(measured[_AREA] * piece.area_px2 / whole_px2, 3)
                own = {**measured, _AREA: area_um2, _WHOLE_AREA: measured[_AREA]}
            data = encode_object(
                piece.geometry,
                uuid=_identifier(first_map_px if ordinal else None, piece.place, tissue_class, drawing),
                tissue_class=tissue_class,
                object_type=drawing.object_type,
                name=name,
                measurements=own,
            )
            n_vertices = int(shapely.get_num_coordinates(piece.geometry))
            features.append(Feature(region, label, n_vertices, data, number if piece.place else 0))
    return features


def _pieces(polygons: NDArray[np.object_], drawing: Drawing) -> list[list[Piece]]:
    """For every polygon what is written of it: nothing where it vanishes, itself, or pieces if it is too large."""
    pieces: list[list[Piece]] = [[] for _ in polygons]
    large = shapely.get_num_coordinates(polygons) > (drawing.max_vertices or math.inf)
    for k, geometry in zip(np.flatnonzero(~large).tolist(), rounded_for_qupath(polygons[~large]), strict=True):
        if geometry is not None:
            pieces[k] = [Piece("", geometry, geometry.area)]
    lattice = Lattice(drawing.scale_level0_px_per_map_px, drawing.offset_level0_px)
    for k in np.flatnonzero(large).tolist():
        pieces[k] = cut(polygons[k], lattice, drawing.max_vertices)
    return pieces


def _identifier(first_map_px: int | None, piece: str, tissue_class: TissueClass, drawing: Drawing) -> UUID:
    """The same for the same region of the same slide at any tolerance, so that a second import is noticed."""
    place = "all"
    if first_map_px is not None:
        y, x = divmod(first_map_px, drawing.map_width_map_px)
        place = f"{x},{y}"
    if piece:
        place += f"/{piece}"
    return uuid5(_NAMESPACE, f"{drawing.fingerprint}/{tissue_class.name}/{place}")


def measurements(table: RegionTable, drawing: Drawing) -> list[dict[str, float]]:
    """For every row: area, and the mean probability of its own class and of every class, over the region's pixels.

    Pixels that had no class before small holes were filled count for the area, but have no probabilities.
    """
    area_um2 = np.round(table.area_map_px * drawing.mpp_map**2, 3).tolist()
    found: list[dict[str, float]] = [{_AREA: area} for area in area_um2]
    if table.probability_sum is None:
        return found
    keys = [f"Prob: {tissue_class.name}" for tissue_class in drawing.classes]
    mean = np.round(table.probability_sum / np.maximum(table.classed_map_px, 1)[:, None], 4)
    own = mean[np.arange(len(mean)), table.label - 1]
    for row, measured in enumerate(found):
        if table.classed_map_px[row]:
            measured["Mean probability"] = float(own[row])
            measured.update(zip(keys, mean[row].tolist(), strict=True))
    return found
