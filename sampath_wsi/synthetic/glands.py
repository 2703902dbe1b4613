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

from sampath_wsi.synthetic.cells import SHAPES, Cell, CellKind, StampSheet
from sampath_wsi.synthetic.noise import Floats32, Textures, Window, derive_seed, level_line_angles, pixel_centres_um
from sampath_wsi.synthetic.slide import STAINS

Generator = np.random.Generator

GLAND_MPP = 0.62
"""Resolution of GlaS, um/px."""

_MARGIN_UM = 30.0
_LEAST_GLAND_UM2 = 150.0
_COARSE_UM = 5.0
_THINNEST_UM = 8.0
_HIGHEST_NUCLEUS_UM = 3.36
# Places are drawn for glands once for so much of a picture's area.
_UM2_A_DRAW = 450.0
_COLUMNAR = CellKind(
    "columnar", (3.6, 5.4), (0.34, 0.5), (0.50, 0.80), 3.4, {}, clumps=0.2, jitter=0.7, follows_fibres=True
)
_ATYPICAL = CellKind(
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
)
_SPINDLE = CellKind("spindle", (4.5, 8.5), (0.16, 0.34), (0.45, 0.85), 11.0, {}, follows_fibres=True)
_LYMPHOCYTE = CellKind("lymphocyte", (2.4, 3.2), (0.8, 1.0), (0.75, 1.1), 6.8, {}, clumps=0.3, clearing_um=0.8)
_RED_CELL = CellKind("red cell", (2.6, 3.4), (0.8, 1.0), (0.5, 0.8), 6.0, {}, rim=0.15, clumps=0.0, red_cell=True)
_GOBLET = CellKind("goblet", (3.4, 6.0), (0.6, 0.95), (0.01, 0.04), 9.0, {}, rim=0.0, clumps=0.0, eosin_left=0.15)


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
        self._textures = Textures(mpp, derive_seed(seed, "glands"))
        self._stamps = StampSheet(mpp, derive_seed(seed, "gland stamps"))

    def paint(self, number: int, width_px: int = 775, height_px: int = 522) -> GlandImage:
        """Paint picture ``number``, whatever else was painted."""
        rng = np.random.default_rng(derive_seed(self._seed, "gland picture", number))
        x_px, y_px = rng.integers(0, 2**22, 2).tolist()
        pad = math.ceil(_MARGIN_UM / self._mpp)
        window = Window(x_px, y_px, width_px, height_px).grow(pad)
        style = _Style(rng)
        glands = self._place_glands(window, style, rng)
        inner = np.s_[pad:-pad, pad:-pad]
        rgb = self._paint(window, style, _signed_depth_um(glands, self._mpp), rng)[inner]
        return GlandImage(np.ascontiguousarray(rgb), _renumbered(glands[inner], self._mpp), style.malignant)

    def _noise(self, name: str, wavelength_um: float, window: Window) -> Floats32:
        return self._textures.noise(f"gland {name}", wavelength_um, window)

    def _place_glands(self, window: Window, style: _Style, rng: Generator) -> NDArray[np.int32]:
        """Return the instances in a window: each gland is placed where it keeps its distance from those before."""
        x_um = pixel_centres_um(0, window.width, self._mpp).astype(np.float32)[None, :]
        y_um = pixel_centres_um(0, window.height, self._mpp).astype(np.float32)[:, None]
        bent_x = x_um + style.bend_um * self._noise("bend x", 75, window) + 2 * self._noise("wobble x", 17, window)
        bent_y = y_um + style.bend_um * self._noise("bend y", 75, window) + 2 * self._noise("wobble y", 17, window)
        size_um = np.array([window.width, window.height]) * self._mpp
        instances = np.zeros((window.height, window.width), np.int32)
        step = max(1, round(_COARSE_UM / self._mpp))
        taken = np.zeros_like(instances[::step, ::step], bool)
        coarse_x, coarse_y = (np.ascontiguousarray(bent[::step, ::step]) for bent in (bent_x, bent_y))
        draws = 20 + int(size_um.prod() / _UM2_A_DRAW)
        for k in range(draws):
            ellipse = _Ellipse(rng, style, size_um, 1 - 0.5 * k / draws)
            if (taken & ellipse.covers(coarse_x, coarse_y, style.gap_um)).any():
                continue
            covered = ellipse.covers(coarse_x, coarse_y)
            taken |= covered
            for box in ndimage.find_objects(covered, 1):
                part = tuple(slice(max(0, (s.start - 2) * step), (s.stop + 2) * step) for s in box or ())
                instances[part][ellipse.covers(bent_x[part], bent_y[part])] = k + 1
            if taken.mean() > style.share:
                break
        return instances

    def _paint(self, window: Window, style: _Style, depth_um: Floats32, rng: Generator) -> NDArray[np.uint8]:
        inside = np.clip(depth_um / (2 * self._mpp) + np.float32(0.5), 0, 1)
        ragged = self._textures.mottle("medium", window)
        uneven = 1 + style.unevenness * self._noise("thickness", 40, window)
        thickness = np.maximum(style.epithelium_um * uneven, _THINNEST_UM) + ragged
        lumen = np.clip((depth_um - thickness) / 1.5, 0, 1) * np.clip(0.93 + 0.05 * ragged, 0, 1)
        parting = self._noise("cleft", 34, window) + 0.25 * ragged - style.clefts
        shrunk = 2 * (self._noise("shrinkage", 75, window) - style.shrinkage) - np.abs(depth_um + 4) / 3
        empty = np.maximum(lumen, np.clip(3 * np.maximum(parting, shrunk), 0, 0.97) * (1 - inside))
        fibres, grain = self._textures.fibres(window), 1 + 0.12 * self._textures.mottle("granular", window)
        stains = np.zeros((3, window.height, window.width), np.float32)
        for stain, (gland, stroma) in enumerate(zip(style.cytoplasm, style.collagen, strict=True)):
            stains[stain] = (gland * grain * inside + stroma * fibres * (1 - inside)) * (1 - empty)
        for cell in self._cells(window, style, depth_um, thickness, empty, rng):
            self._stamps.lay(cell, stains, window)
        stains *= style.strength[:, None, None]
        stains *= 1 + np.float32(0.06) * self._noise("section", 150, window)
        density = np.tensordot(stains, style.stains, axes=(0, 0))
        rgb = style.glass * np.exp(density * np.float32(-math.log(10)))
        for channel in range(3):
            rgb[..., channel] = ndimage.gaussian_filter(rgb[..., channel], style.blur_um / self._mpp)
        pixels: NDArray[np.uint8] = np.clip(rgb + self._textures.grain(window), 0, 255).astype(np.uint8)
        return pixels

    def _cells(
        self,
        window: Window,
        style: _Style,
        depth_um: Floats32,
        thickness_um: Floats32,
        empty: Floats32,
        rng: Generator,
    ) -> Iterator[Cell]:
        """Yield cells where they belong: by depth in the gland, and in patches of the stroma."""
        upright = level_line_angles(depth_um) + math.pi / 2
        along = level_line_angles(self._textures.fibre_turns(window))
        immune = self._noise("immune", 90, window) + 0.3 * self._noise("immune border", 30, window)
        blood = self._noise("blood", 80, window)
        stroma = np.clip(-1 - depth_um / 2, 0, 1) * (empty < 0.3)
        row = (depth_um > _HIGHEST_NUCLEUS_UM) & (depth_um < np.minimum(style.nuclei_um, thickness_um - 2))
        for kind, share in (
            (_SPINDLE, style.spindles * stroma),
            (_RED_CELL, 0.95 * stroma * (blood > style.blood)),
            (_LYMPHOCYTE, np.maximum(0.04, 0.8 * (immune > style.immune)) * stroma),
            (_GOBLET, style.goblets * ((depth_um > style.nuclei_um + 2.5) & (depth_um < thickness_um - 1))),
            (_ATYPICAL if style.malignant else _COLUMNAR, 0.93 * row),
        ):
            x, y = _lattice(kind, window, self._mpp, rng)
            keep = rng.random(len(x)) < share[y, x]
            angles = (along if kind is _SPINDLE else upright)[y, x] + rng.normal(0, 0.22, len(x))
            shapes, intensity = rng.integers(0, SHAPES, len(x)), rng.random(len(x))
            for k in np.flatnonzero(keep).tolist():
                yield Cell(kind, window.x + int(x[k]), window.y + int(y[k]), angles[k], int(shapes[k]), intensity[k])


class _Style:
    """Random appearance of the glands of one picture: lengths in um, stains as concentrations (H, E, blood)."""

    def __init__(self, rng: Generator) -> None:
        draw = rng.uniform
        self.malignant = malignant = bool(rng.random() < 0.5)
        self.radius_um = draw(32, 90) if malignant else draw(32, 65)
        self.aspect = draw(1, 2.2) if malignant else draw(1, 2.8)
        self.angle = draw(0, math.pi)
        self.gap_um = draw(2, 9) if rng.random() < 0.6 else draw(9, 30)
        self.bend_um = draw(6, 24) if malignant else draw(2, 8)
        # Share of the picture after which no further gland is placed.
        self.share = draw(0.25, 0.95)
        self.epithelium_um = draw(16, 45) if malignant else draw(16, 36)
        # How much the epithelium's thickness varies, as a share of it.
        self.unevenness = draw(0.2, 0.8) if malignant else draw(0.1, 0.35)
        # Nuclei lie no deeper than this from the gland's border.
        self.nuclei_um = draw(12, 24) if malignant else draw(5, 9)
        self.goblets = draw(0, 0.1) if malignant else 1 - 0.9 * rng.random() ** 2
        self.spindles = draw(0.15, 0.7)
        # Thresholds of noise of variance 1: the lower, the more there is.
        self.immune, self.blood = draw(0.0, 2.4), draw(1.2, 3)
        self.clefts, self.shrinkage = draw(1.2, 3), draw(0.2, 2.5)
        self.cytoplasm = (draw(0.06, 0.15), draw(0.09, 0.19), 0.0)
        self.collagen = (draw(0.02, 0.06), draw(0.10, 0.22), 0.0)
        self.strength = np.repeat(draw((0.45, 0.5), (1.3, 1.5)), (1, 2)).astype(np.float32)
        self.stains = (STAINS * rng.normal(1, 0.08, STAINS.shape)).astype(np.float32)
        self.glass = (draw(232, 248) + draw(-4, 4, 3)).astype(np.float32)
        self.blur_um = draw(0.25, 0.65)


class _Ellipse:
    """A gland before its outline is bent, somewhere in a picture.

    Parameters
    ----------
    size_um
        (width, height) of the picture.
    scale
        How much larger than usual it is.
    """

    def __init__(self, rng: Generator, style: _Style, size_um: NDArray[np.float64], scale: float) -> None:
        self._x_um, self._y_um = (rng.random(2) * size_um).tolist()
        radius = style.radius_um * scale * float(np.clip(rng.lognormal(0, 0.3), 0.6, 2))
        stretch = math.sqrt(style.aspect * rng.uniform(0.8, 1.25))
        self._long_um, self._short_um = radius * stretch, radius / stretch
        self._angle = style.angle + (rng.uniform(0, math.pi) if style.malignant else rng.normal(0, 0.25))

    def covers(self, x_um: Floats32, y_um: Floats32, margin_um: float = 0.0) -> NDArray[np.bool_]:
        """Return which points lie inside the ellipse grown by a margin."""
        x, y = x_um - np.float32(self._x_um), y_um - np.float32(self._y_um)
        cos, sin = np.float32(math.cos(self._angle)), np.float32(math.sin(self._angle))
        along = (cos * x + sin * y) / np.float32(self._long_um + margin_um)
        across = (cos * y - sin * x) / np.float32(self._short_um + margin_um)
        inside: NDArray[np.bool_] = along * along + across * across < 1
        return inside


def _lattice(kind: CellKind, window: Window, mpp: float, rng: Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return columns and rows of a jittered hexagonal lattice in a window."""
    step_px = kind.spacing_um / mpp
    rows, columns = (np.arange(math.floor(side / step_px)) for side in (window.height, window.width))
    y, x = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
    jitter = kind.jitter * (rng.random((2, len(x))) - 0.5)
    x_px = np.clip((x + 0.5 * (y % 2) + 0.5 + jitter[0]) * step_px, 0, window.width - 1)
    y_px = np.clip((y + 0.5 + jitter[1]) * step_px, 0, window.height - 1)
    return x_px.astype(np.int64), y_px.astype(np.int64)


def _signed_depth_um(glands: NDArray[np.int32], mpp: float) -> Floats32:
    """Return the smooth distance from the nearest border of a gland, positive in glands, negative in the stroma."""
    half = glands[::2, ::2] > 0
    depth = ndimage.distance_transform_edt(half) - ndimage.distance_transform_edt(~half)
    depth = ndimage.gaussian_filter(depth.astype(np.float32), 1.0)
    grown: Floats32 = np.repeat(np.repeat(depth, 2, 0), 2, 1)[: glands.shape[0], : glands.shape[1]]
    return grown * np.float32(2 * mpp)


def _renumbered(glands: NDArray[np.int32], mpp: float) -> NDArray[np.uint16]:
    """Return the connected glands of a picture as 1, 2, ...; slivers at its edges are no glands."""
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
