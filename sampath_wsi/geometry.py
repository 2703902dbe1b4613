"""Coordinate frames and the tile grid: pure arithmetic, no input or output.

Four frames, named in every variable that holds a coordinate or a length:

``level0_px``
    The slide's full resolution, origin at the slide's top-left corner (before any cropping to bounds).
``read_px``
    The pyramid level that is read.
``model_px``
    The model's resolution (``mpp_model`` micrometres a pixel), origin at the corner of the tiled region.
``map_px``
    The probability map: ``model_px`` divided by the output stride, same origin.

Corner convention throughout: pixel ``(x, y)`` covers ``[x, x + 1] x [y, y + 1]``, so a frame changes by a factor
and an offset alone, without half-pixel shifts.

Worked example: a slide of 0.25 um/px, a model of 0.5 um/px with tiles of 1024 and an overlap of 128, and an
output stride of 4. One model pixel is 2 level-0 pixels; the tile in column 1 begins at model pixel 896, which
is level-0 pixel 1792 and map pixel 224, and spans 2048 level-0 pixels and 256 map pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from sampath_wsi.errors import ConfigError

# Ten times those of the largest glass slides at a model's finest resolution.
_MAX_TILES = 1 << 22

MppSource = Literal["metadata", "sample sheet", "command line"]


@dataclass(frozen=True)
class Box:
    """A rectangle ``[x, x + width] x [y, y + height]`` in one frame (the variable's name says which)."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def scaled(self, factor: float) -> Box:
        """Return the same rectangle in a frame whose pixels are ``1 / factor`` times as large."""
        return Box(self.x * factor, self.y * factor, self.width * factor, self.height * factor)


@dataclass(frozen=True)
class Tiling:
    """Resolution, size and overlap of tiles, and the model pixels in one map pixel.

    Raises
    ------
    ConfigError
        If tile size and overlap do not fit each other or the output stride.
    """

    mpp_model: float
    tile_model_px: int
    overlap_model_px: int
    output_stride: int

    def __post_init__(self) -> None:
        tile, overlap, stride = self.tile_model_px, self.overlap_model_px, self.output_stride
        if overlap < 0 or 2 * overlap > tile:
            raise ConfigError(
                f"an overlap of {overlap} px does not fit a tile of {tile} px",
                "Choose an overlap from 0 to half the tile.",
            )
        if tile % stride or overlap % stride:
            raise ConfigError(
                f"tile ({tile} px) and overlap ({overlap} px) must be multiples of the model's "
                f"output stride ({stride} px)",
                "Change the overlap.",
            )

    def tiles_along(self, length_model_px: float) -> int:
        """Return how many tiles cover a length; at least one."""
        # A millionth of a pixel is rounding noise, not a reason for one more column.
        step = self.tile_model_px - self.overlap_model_px
        return max(1, math.ceil((length_model_px - self.overlap_model_px) / step - 1e-6))


@dataclass(frozen=True)
class TileGrid:
    """Everything that places a tile on a slide; stored as JSON in every store.

    Tiles have the same size and a constant step, row by row from the region's top-left corner; the last row and
    column may reach beyond the region. ``tiles`` lists the indices (``row * columns + column``) of the tiles that
    hold tissue, ascending: position ``k`` in the stores is tile ``tiles[k]``.
    """

    slide_width_level0_px: int
    slide_height_level0_px: int
    mpp_x: float
    mpp_y: float
    mpp_source: MppSource
    region_x_level0_px: int
    region_y_level0_px: int
    region_width_level0_px: int
    region_height_level0_px: int
    mpp_model: float
    tile_model_px: int
    overlap_model_px: int
    output_stride: int
    rows: int
    columns: int
    tiles: tuple[int, ...] = ()

    @classmethod
    def plan(
        cls,
        *,
        slide_size_level0_px: tuple[int, int],
        mpp: tuple[float, float],
        mpp_source: MppSource,
        region_level0_px: tuple[int, int, int, int],
        tiling: Tiling,
    ) -> TileGrid:
        """Lay a grid over a region ``(x, y, width, height)`` of a slide; ``tiles`` names every tile.

        The slide's size is (width, height); ``mpp`` is um/px along (x, y).

        Raises
        ------
        ConfigError
            If no slide has so many tiles.
        """
        x, y, width, height = region_level0_px
        columns, rows = (
            tiling.tiles_along(length * mpp_axis / tiling.mpp_model)
            for length, mpp_axis in zip((width, height), mpp, strict=True)
        )
        if rows * columns > _MAX_TILES:
            raise ConfigError(
                f"the slide's {width} x {height} px at {mpp[0]:g} x {mpp[1]:g} um/px would be cut into "
                f"{columns} x {rows} tiles",
                "Check its resolution (mpp).",
            )
        return cls(
            slide_width_level0_px=slide_size_level0_px[0],
            slide_height_level0_px=slide_size_level0_px[1],
            mpp_x=mpp[0],
            mpp_y=mpp[1],
            mpp_source=mpp_source,
            region_x_level0_px=x,
            region_y_level0_px=y,
            region_width_level0_px=width,
            region_height_level0_px=height,
            **asdict(tiling),
            rows=rows,
            columns=columns,
            tiles=tuple(range(rows * columns)),
        )

    def keep(self, tiles: Iterable[int]) -> TileGrid:
        """Return the same grid with only these tiles."""
        return replace(self, tiles=tuple(sorted({int(tile) for tile in tiles})))

    @property
    def level0_px_per_model_px(self) -> tuple[float, float]:
        """Level-0 pixels in one model pixel, (x, y); they differ where the slide's pixels are not square."""
        return self.mpp_model / self.mpp_x, self.mpp_model / self.mpp_y

    @property
    def level0_px_per_map_px(self) -> tuple[float, float]:
        """Level-0 pixels in one pixel of the probability map, (x, y)."""
        sx, sy = self.level0_px_per_model_px
        return sx * self.output_stride, sy * self.output_stride

    @property
    def mpp_map(self) -> float:
        """Micrometres in one pixel of the probability map (the map's pixels are square)."""
        return self.mpp_model * self.output_stride

    @property
    def step_model_px(self) -> int:
        return self.tile_model_px - self.overlap_model_px

    @property
    def tile_map_px(self) -> int:
        return self.tile_model_px // self.output_stride

    @property
    def step_map_px(self) -> int:
        return self.step_model_px // self.output_stride

    @property
    def map_size_map_px(self) -> tuple[int, int]:
        """(width, height) of the probability map: the region, rounded up to whole map pixels."""
        sx, sy = self.level0_px_per_map_px
        width = math.ceil(self.region_width_level0_px / sx - 1e-6)
        height = math.ceil(self.region_height_level0_px / sy - 1e-6)
        return max(1, width), max(1, height)

    def row_column(self, tile: int) -> tuple[int, int]:
        """Return the row and column of a tile index."""
        return divmod(tile, self.columns)

    def tile_box_level0_px(self, tile: int) -> Box:
        """Return the tile's exact rectangle on the slide; computed from the index, so that nothing accumulates."""
        row, column = self.row_column(tile)
        sx, sy = self.level0_px_per_model_px
        return Box(
            x=self.region_x_level0_px + column * self.step_model_px * sx,
            y=self.region_y_level0_px + row * self.step_model_px * sy,
            width=self.tile_model_px * sx,
            height=self.tile_model_px * sy,
        )

    def tile_corner_map_px(self, tile: int) -> tuple[int, int]:
        """Return (x, y) of the tile's top-left corner on the probability map."""
        row, column = self.row_column(tile)
        return column * self.step_map_px, row * self.step_map_px

    def tiles_touching_map_px(self, x0: int, y0: int, x1: int, y1: int) -> list[tuple[int, int]]:
        """Return the kept tiles that touch the map rectangle ``[x0, x1) x [y0, y1)``.

        Returns
        -------
        Pairs ``(position in the stores, tile index)``, ascending.
        """
        step, size = self.step_map_px, self.tile_map_px
        first_column, last_column = max(0, (x0 - size) // step + 1), min(self.columns - 1, (x1 - 1) // step)
        first_row, last_row = max(0, (y0 - size) // step + 1), min(self.rows - 1, (y1 - 1) // step)
        touched = (
            row * self.columns + column
            for row in range(first_row, last_row + 1)
            for column in range(first_column, last_column + 1)
        )
        return [(self._positions[tile], tile) for tile in touched if tile in self._positions]

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {tile: position for position, tile in enumerate(self.tiles)}

    def map_to_level0_px(self) -> tuple[float, float, float, float]:
        """``(scale_x, scale_y, offset_x, offset_y)`` with ``level0 = map * scale + offset``."""
        sx, sy = self.level0_px_per_map_px
        return sx, sy, float(self.region_x_level0_px), float(self.region_y_level0_px)

    def to_json(self) -> dict[str, object]:
        """Return a JSON object; ``tiles`` as runs ``[first, count]`` of consecutive indices."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**fields, "tiles": _runs(self.tiles)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TileGrid:
        """Invert :meth:`to_json`."""
        tiles = tuple(tile for first, count in fields["tiles"] for tile in range(first, first + count))
        return cls(**{**fields, "tiles": tiles})


def _runs(tiles: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for tile in tiles:
        if runs and tile == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([tile, 1])
    return runs
