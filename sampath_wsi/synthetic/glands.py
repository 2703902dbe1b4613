"""H&E-like pictures of colon glands with their instance masks, of any size and resolution.

Glands are ellipses in coordinates that smooth noise has bent: an epithelium whose nuclei stand upright on its base (in
one row, or in several and larger ones in malignant pictures), goblet cells, and a pale lumen. Around them lies stroma
of wavy fibres with spindle cells, lymphocytes, blood, and clefts as pale as a lumen, so that no colour by itself tells
a gland.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sampath_wsi.synthetic.gland_look import GLAND_MPP, Ellipse, Look
from sampath_wsi.synthetic.noise import derive_seed, pixel_centres_um
from sampath_wsi.synthetic.render import lay_cell
from sampath_wsi.synthetic.scene import Scene
from sampath_wsi.synthetic.stamps import Cell, CellKind, StampSheet
from sampath_wsi.synthetic.textures import Floats32, Textures, Window

Generator = np.random.Generator

_MARGIN_UM = 30.0
_LEAST_GLAND_UM2 = 150.0
_COARSE_UM = 5.0
_THINNEST_UM = 8.0
_HIGHEST_NUCLEUS_UM = 3.36
_UM2_A_DRAW = 450.0
"""Places are drawn for glands once for so much of a picture's area."""
_KINDS = (
    CellKind("columnar", (3.6, 5.4), (0.34, 0.5), (0.50, 0.80), 3.4, {}, clumps=0.2, jitter=0.7, follows_fibres=True),
    CellKind(
        "atypical",
        (4.2, 6.8),
        (0.45, 0.8),
        (0.40, 0.8),
        5.6,
        {},
        irregularity=0.1,
        rim=0.4,
        clumps=0.3,
        nucleoli=0.4,
        jitter=0.8,
        follows_fibres=True,
    ),
    CellKind("spindle", (4.5, 8.5), (0.16, 0.34), (0.45, 0.85), 11.0, {}, follows_fibres=True),
    CellKind("lymphocyte", (2.4, 3.2), (0.8, 1.0), (0.75, 1.1), 6.8, {}, clumps=0.3, clearing_um=0.8),
    CellKind("red cell", (2.6, 3.4), (0.8, 1.0), (0.5, 0.8), 6.0, {}, rim=0.15, clumps=0.0, red_cell=True),
    CellKind("goblet", (3.4, 6.0), (0.6, 0.95), (0.01, 0.04), 9.0, {}, rim=0.0, clumps=0.0, eosin_left=0.15),
)
_COLUMNAR, _ATYPICAL, _SPINDLE, _LYMPHOCYTE, _RED_CELL, _GOBLET = range(len(_KINDS))


class GlandImage(NamedTuple):
    """A picture ``(height, width, 3)`` uint8 RGB and its instances ``(height, width)`` uint16, 0 = no gland."""

    rgb: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    malignant: bool


class GlandPainter:
    """Paints pictures of glands: places on one endless slide, so that a picture depends on seed and number alone.

    Parameters
    ----------
    mpp
        Micrometres a pixel.
    seed
        Everything random is drawn from it.
    """

    def __init__(self, mpp: float = GLAND_MPP, seed: int = 0) -> None:
        self._mpp, self._seed = mpp, seed
        self._textures = Textures(Scene(1024, 1024, mpp, derive_seed(seed, "glands")))
        self._stamps = StampSheet(mpp, derive_seed(seed, "gland stamps"), _KINDS)

    def paint(self, number: int, width_px: int = 775, height_px: int = 522) -> GlandImage:
        """Picture ``number``, whatever else was painted."""
        rng = np.random.default_rng(derive_seed(self._seed, "gland picture", number))
        x_px, y_px = rng.integers(0, 2**22, 2).tolist()
        pad = math.ceil(_MARGIN_UM / self._mpp)
        window = Window(x_px, y_px, width_px, height_px).grow(pad)
        look = Look.draw(rng)
        glands = self._place_glands(window, look, rng)
        inner = np.s_[pad:-pad, pad:-pad]
        rgb = self._paint(window, look, _signed_depth_um(glands, self._mpp), rng)[inner]
        return GlandImage(np.ascontiguousarray(rgb), _renumbered(glands[inner], self._mpp), look.malignant)

    def _noise(self, name: str, wavelength_um: float, window: Window) -> Floats32:
        return self._textures.noise(f"gland {name}", wavelength_um, window)

    def _place_glands(self, window: Window, look: Look, rng: Generator) -> NDArray[np.int32]:
        """Instances in a window: each gland is placed where it keeps its distance from those before."""
        x_um = pixel_centres_um(0, window.width, self._mpp).astype(np.float32)[None, :]
        y_um = pixel_centres_um(0, window.height, self._mpp).astype(np.float32)[:, None]
        bent_x = x_um + look.bend_um * self._noise("bend x", 75, window) + 2 * self._noise("wobble x", 17, window)
        bent_y = y_um + look.bend_um * self._noise("bend y", 75, window) + 2 * self._noise("wobble y", 17, window)
        size_um = np.array([window.width, window.height]) * self._mpp
        instances = np.zeros((window.height, window.width), np.int32)
        step = max(1, round(_COARSE_UM / self._mpp))
        taken = np.zeros_like(instances[::step, ::step], bool)
        coarse_x, coarse_y = (np.ascontiguousarray(bent[::step, ::step]) for bent in (bent_x, bent_y))
        draws = 20 + int(size_um.prod() / _UM2_A_DRAW)
        for k in range(draws):
            ellipse = Ellipse.draw(rng, look, size_um, 1 - 0.5 * k / draws)
            if (taken & ellipse.covers(coarse_x, coarse_y, look.gap_um)).any():
                continue
            covered = ellipse.covers(coarse_x, coarse_y, 0.0)
            taken |= covered
            for box in ndimage.find_objects(covered, 1):
                part = tuple(slice(max(0, (s.start - 2) * step), (s.stop + 2) * step) for s in box or ())
                instances[part][ellipse.covers(bent_x[part], bent_y[part], 0.0)] = k + 1
            if taken.mean() > look.share:
                break
        return instances

    def _paint(self, window: Window, look: Look, depth_um: Floats32, rng: Generator) -> NDArray[np.uint8]:
        inside = np.clip(depth_um / (2 * self._mpp) + np.float32(0.5), 0, 1)
        ragged = self._textures.mottle("medium", window)
        uneven = 1 + look.unevenness * self._noise("thickness", 40, window)
        thickness = np.maximum(look.epithelium_um * uneven, _THINNEST_UM) + ragged
        lumen = np.clip((depth_um - thickness) / 1.5, 0, 1) * np.clip(0.93 + 0.05 * ragged, 0, 1)
        parting = self._noise("cleft", 34, window) + 0.25 * ragged - look.clefts
        shrunk = 2 * (self._noise("shrinkage", 75, window) - look.shrinkage) - np.abs(depth_um + 4) / 3
        empty = np.maximum(lumen, np.clip(3 * np.maximum(parting, shrunk), 0, 0.97) * (1 - inside))
        fibres, grain = self._textures.fibres(window), 1 + 0.12 * self._textures.mottle("granular", window)
        stains = np.zeros((3, window.height, window.width), np.float32)
        for stain, (gland, stroma) in enumerate(zip(look.cytoplasm, look.collagen, strict=True)):
            stains[stain] = (gland * grain * inside + stroma * fibres * (1 - inside)) * (1 - empty)
        for cell in self._cells(window, look, depth_um, thickness, empty, rng):
            lay_cell(cell, self._stamps, stains, window)
        stains *= look.strength[:, None, None]
        stains *= 1 + np.float32(0.06) * self._noise("section", 150, window)
        density = np.tensordot(stains, look.stains, axes=(0, 0))
        rgb = look.glass * np.exp(density * np.float32(-math.log(10)))
        for channel in range(3):
            rgb[..., channel] = ndimage.gaussian_filter(rgb[..., channel], look.blur_um / self._mpp)
        pixels: NDArray[np.uint8] = np.clip(rgb + self._textures.grain(window), 0, 255).astype(np.uint8)
        return pixels

    def _cells(
        self,
        window: Window,
        look: Look,
        depth_um: Floats32,
        thickness_um: Floats32,
        empty: Floats32,
        rng: Generator,
    ) -> Iterator[Cell]:
        """Cells where they belong: by depth in the gland, and in patches of the stroma."""
        upright = _angles(depth_um) + math.pi / 2
        along = _angles(self._textures.fibre_turns(window))
        immune = self._noise("immune", 90, window) + 0.3 * self._noise("immune border", 30, window)
        blood = self._noise("blood", 80, window)
        stroma = np.clip(-1 - depth_um / 2, 0, 1) * (empty < 0.3)
        row = (depth_um > _HIGHEST_NUCLEUS_UM) & (depth_um < np.minimum(look.nuclei_um, thickness_um - 2))
        share = {
            _SPINDLE: look.spindles * stroma,
            _RED_CELL: 0.95 * stroma * (blood > look.blood),
            _LYMPHOCYTE: np.maximum(0.04, 0.8 * (immune > look.immune)) * stroma,
            _GOBLET: look.goblets * ((depth_um > look.nuclei_um + 2.5) & (depth_um < thickness_um - 1)),
            _ATYPICAL if look.malignant else _COLUMNAR: 0.93 * row,
        }
        for number, where in share.items():
            kind = _KINDS[number]
            x, y = _lattice(kind, window, self._mpp, rng)
            keep = rng.random(len(x)) < where[y, x]
            angles = (along if number == _SPINDLE else upright)[y, x] + rng.normal(0, 0.22, len(x))
            shapes, intensity = rng.integers(0, 2**20, len(x)), rng.random(len(x))
            for k in np.flatnonzero(keep).tolist():
                yield Cell(number, window.x + int(x[k]), window.y + int(y[k]), angles[k], int(shapes[k]), intensity[k])


def _lattice(kind: CellKind, window: Window, mpp: float, rng: Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows of a jittered hexagonal lattice in a window."""
    step_px = kind.spacing_um / mpp
    rows, columns = (np.arange(math.floor(side / step_px)) for side in (window.height, window.width))
    y, x = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
    jitter = kind.jitter * (rng.random((2, len(x))) - 0.5)
    x_px = np.clip((x + 0.5 * (y % 2) + 0.5 + jitter[0]) * step_px, 0, window.width - 1)
    y_px = np.clip((y + 0.5 + jitter[1]) * step_px, 0, window.height - 1)
    return x_px.astype(np.int64), y_px.astype(np.int64)


def _angles(field: Floats32) -> Floats32:
    """Direction of the level lines of a field."""
    down, across = np.gradient(field)
    angles: Floats32 = np.arctan2(across, -down)
    return angles


def _signed_depth_um(glands: NDArray[np.int32], mpp: float) -> Floats32:
    """Distance from the nearest border of a gland: positive in glands, negative in the stroma; smooth."""
    half = glands[::2, ::2] > 0
    depth = ndimage.distance_transform_edt(half) - ndimage.distance_transform_edt(~half)
    depth = ndimage.gaussian_filter(depth.astype(np.float32), 1.0)
    grown: Floats32 = np.repeat(np.repeat(depth, 2, 0), 2, 1)[: glands.shape[0], : glands.shape[1]]
    return grown * np.float32(2 * mpp)


def _renumbered(glands: NDArray[np.int32], mpp: float) -> NDArray[np.uint16]:
    """Connected glands 1, 2, ... of a picture; slivers at its edges are no glands."""
    compact = np.zeros(glands.shape, np.int32)
    count = 0
    for number, box in enumerate(ndimage.find_objects(glands), start=1):
        if box is None:
            continue
        parts, found = ndimage.label(glands[box] == number)
        for part in range(1, found + 1):
            mask = parts == part
            if mask.sum() * mpp**2 >= _LEAST_GLAND_UM2:
                count += 1
                compact[box][mask] = count
    return compact.astype(np.uint16)
