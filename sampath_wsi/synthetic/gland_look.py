"""What differs between pictures of glands: how large and dense the glands are, and how the tissue is stained."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.synthetic.render import STAINS
from sampath_wsi.synthetic.textures import Floats32

GLAND_MPP = 0.62
"""Resolution of GlaS, um/px."""


@dataclass(frozen=True)
class Look:
    """How the glands of one picture look; lengths in micrometres, stains as concentrations (H, E, blood)."""

    malignant: bool
    radius_um: float
    aspect: float
    angle: float
    gap_um: float
    bend_um: float
    share: float
    """Share of the picture after which no further gland is placed."""
    epithelium_um: float
    unevenness: float
    """How much the epithelium's thickness varies, as a share of it."""
    nuclei_um: float
    """Nuclei lie no deeper than this from the gland's border."""
    goblets: float
    spindles: float
    immune: float
    blood: float
    clefts: float
    shrinkage: float
    """Thresholds of noise of variance 1: the lower, the more there is."""
    cytoplasm: tuple[float, float, float]
    collagen: tuple[float, float, float]
    strength: Floats32
    stains: Floats32
    glass: Floats32
    blur_um: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Look:
        """A look at random; half of them are malignant."""
        malignant = bool(rng.random() < 0.5)
        return cls(
            malignant=malignant,
            radius_um=rng.uniform(32, 90) if malignant else rng.uniform(32, 65),
            aspect=rng.uniform(1, 2.2) if malignant else rng.uniform(1, 2.8),
            angle=rng.uniform(0, math.pi),
            gap_um=rng.uniform(2, 9) if rng.random() < 0.6 else rng.uniform(9, 30),
            bend_um=rng.uniform(6, 24) if malignant else rng.uniform(2, 8),
            share=rng.uniform(0.25, 0.95),
            epithelium_um=rng.uniform(16, 45) if malignant else rng.uniform(16, 36),
            unevenness=rng.uniform(0.2, 0.8) if malignant else rng.uniform(0.1, 0.35),
            nuclei_um=rng.uniform(12, 24) if malignant else rng.uniform(5, 9),
            goblets=rng.uniform(0, 0.1) if malignant else 1 - 0.9 * rng.random() ** 2,
            spindles=rng.uniform(0.15, 0.7),
            immune=rng.uniform(0.0, 2.4),
            blood=rng.uniform(1.2, 3),
            clefts=rng.uniform(1.2, 3),
            shrinkage=rng.uniform(0.2, 2.5),
            cytoplasm=(rng.uniform(0.06, 0.15), rng.uniform(0.09, 0.19), 0.0),
            collagen=(rng.uniform(0.02, 0.06), rng.uniform(0.10, 0.22), 0.0),
            strength=np.repeat(rng.uniform((0.45, 0.5), (1.3, 1.5)), (1, 2)).astype(np.float32),
            stains=(STAINS * rng.normal(1, 0.08, STAINS.shape)).astype(np.float32),
            glass=(rng.uniform(232, 248) + rng.uniform(-4, 4, 3)).astype(np.float32),
            blur_um=rng.uniform(0.25, 0.65),
        )


@dataclass(frozen=True)
class Ellipse:
    """A gland before its outline is bent; micrometres."""

    x_um: float
    y_um: float
    long_um: float
    short_um: float
    angle: float

    @classmethod
    def draw(cls, rng: np.random.Generator, look: Look, size_um: NDArray[np.float64], scale: float) -> Ellipse:
        """An ellipse somewhere in a picture of ``size_um`` (width, height), ``scale`` times as large as usual."""
        x_um, y_um = (rng.random(2) * size_um).tolist()
        radius = look.radius_um * scale * float(np.clip(rng.lognormal(0, 0.3), 0.6, 2))
        stretch = math.sqrt(look.aspect * rng.uniform(0.8, 1.25))
        turn = look.angle + (rng.uniform(0, math.pi) if look.malignant else rng.normal(0, 0.25))
        return cls(x_um, y_um, radius * stretch, radius / stretch, turn)

    def covers(self, x_um: Floats32, y_um: Floats32, margin_um: float) -> NDArray[np.bool_]:
        """Which points lie inside the ellipse grown by a margin."""
        x, y = x_um - np.float32(self.x_um), y_um - np.float32(self.y_um)
        cos, sin = np.float32(math.cos(self.angle)), np.float32(math.sin(self.angle))
        along = (cos * x + sin * y) / np.float32(self.long_um + margin_um)
        across = (cos * y - sin * x) / np.float32(self.short_um + margin_um)
        inside: NDArray[np.bool_] = along * along + across * across < 1
        return inside
