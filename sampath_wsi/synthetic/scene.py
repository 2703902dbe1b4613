"""The tissue of a synthetic slide: the class of every point.

The anatomy is a stack of smooth random fields with thresholds: a piece of tissue with a ragged outline and tears on
a glass slide; tumour nests in stroma; necrosis in the depth of the tumour; lymphoid aggregates and bleeding
("Other") in what is left. Thresholds are quantiles over the whole slide, so that every class has its share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError
from sampath_wsi.synthetic.noise import Floats, named_noise, pixel_centres_um

CLASSES = (
    TissueClass(name="Tumor", color=(200, 0, 0)),
    TissueClass(name="Stroma", color=(150, 200, 150)),
    TissueClass(name="Immune cells", color=(160, 90, 160)),
    TissueClass(name="Necrosis", color=(50, 50, 50)),
    TissueClass(name="Other", color=(255, 200, 0)),
)
GLASS, TUMOR, STROMA, IMMUNE, NECROSIS, OTHER = range(6)

TRUTH_DOWNSAMPLE = 4
"""Level-0 pixels along one side of a pixel of the class map."""

_SHARE_OF_TISSUE = {TUMOR: 0.42, NECROSIS: 0.11, IMMUNE: 0.13, OTHER: 0.10}
_SMALLEST_SLIDE_PX = 256
_SAMPLES_AN_AXIS = 192
_SHIFT_UM = 14.0
_LARGEST_SHIFT_UM = 40.0


@dataclass(frozen=True)
class Scene:
    """A synthetic slide before it is painted; the class map of any window can be asked for.

    Parameters
    ----------
    width_px, height_px
        Size of level 0.
    mpp
        Micrometres a level-0 pixel. Structures are laid out in micrometres, so that one seed gives the same
        tissue at every resolution.
    seed
        Everything random is drawn from it.

    Raises
    ------
    ConfigError
        If the slide is smaller than 256 px or the resolution is not positive.
    """

    width_px: int
    height_px: int
    mpp: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.width_px, self.height_px) < _SMALLEST_SLIDE_PX or not 0 < self.mpp < float("inf"):
            raise ConfigError(
                f"a synthetic slide of {self.width_px} x {self.height_px} px at {self.mpp} um/px cannot be made",
                f"Ask for at least {_SMALLEST_SLIDE_PX} px a side and a positive resolution.",
            )

    @property
    def map_size_px(self) -> tuple[int, int]:
        """(width, height) of the class map: :data:`TRUTH_DOWNSAMPLE` level-0 pixels each, rounded up."""
        return -(-self.width_px // TRUTH_DOWNSAMPLE), -(-self.height_px // TRUTH_DOWNSAMPLE)

    @property
    def map_mpp(self) -> float:
        """Micrometres a pixel of the class map."""
        return self.mpp * TRUTH_DOWNSAMPLE

    def class_map(self, x_map_px: int, y_map_px: int, width_map_px: int, height_map_px: int) -> NDArray[np.uint8]:
        """Return the labels of a window of the class map; the window may reach beyond the slide.

        Returns
        -------
        ``(height_map_px, width_map_px)`` uint8: 0 = glass, i + 1 = class i of :data:`CLASSES`. A pixel has the
        class of its centre.
        """
        reach_px = math.ceil(_LARGEST_SHIFT_UM / self.map_mpp)
        x_um = pixel_centres_um(x_map_px - reach_px, width_map_px + 2 * reach_px, self.map_mpp)
        y_um = pixel_centres_um(y_map_px - reach_px, height_map_px + 2 * reach_px, self.map_mpp)
        labels = self._labels(x_um, y_um)
        inner = slice(reach_px, -reach_px)
        if not labels.any():
            return labels[inner, inner]

        def shift_px(name: str) -> NDArray[np.int64]:
            shift_um = np.clip(
                _SHIFT_UM * self._noise(name, 85, x_um[inner], y_um[inner]), -_LARGEST_SHIFT_UM, _LARGEST_SHIFT_UM
            )
            return np.rint(shift_um / self.map_mpp).astype(np.int64)

        # The fields' lattice shows as level and upright borders; shifting every pixel a little bends them.
        rows = reach_px + np.arange(height_map_px)[:, None] + shift_px("shift down")
        columns = reach_px + np.arange(width_map_px)[None, :] + shift_px("shift across")
        shifted: NDArray[np.uint8] = labels[rows, columns]
        return shifted

    def _labels(self, x_um: Floats, y_um: Floats) -> NDArray[np.uint8]:
        tissue = self._tissue_um(x_um, y_um) > 0
        labels = np.zeros(tissue.shape, np.uint8)
        if not tissue.any():
            return labels
        high = {label: field > self._thresholds[label] for label, field in self._class_fields(x_um, y_um).items()}
        labels[tissue] = STROMA
        labels[tissue & high[OTHER]] = OTHER
        labels[tissue & high[IMMUNE]] = IMMUNE
        labels[tissue & high[TUMOR]] = TUMOR
        labels[tissue & high[TUMOR] & high[NECROSIS]] = NECROSIS
        return labels

    def _noise(self, name: str, wavelength_um: float, x_um: Floats, y_um: Floats) -> Floats:
        return named_noise(self.seed, name, wavelength_um, x_um, y_um)

    def _tissue_um(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return roughly the distance from the tissue's outline or the next tear in micrometres, positive inside."""
        width_um, height_um = self.width_px * self.mpp, self.height_px * self.mpp
        shorter_um = min(width_um, height_um)
        across = np.abs(x_um / width_um - 0.5) / 0.42
        down = np.abs(y_um / height_um - 0.5) / 0.42
        radius = (across[None, :] ** 2.6 + down[:, None] ** 2.6) ** (1 / 2.6)
        outline = (1 - radius) * 0.43 * shorter_um
        outline += 0.050 * shorter_um * self._noise("outline", shorter_um / 3, x_um, y_um)
        outline += 0.014 * shorter_um * self._noise("outline, finer", shorter_um / 9, x_um, y_um)
        outline += 9 * self._noise("ragged", 70, x_um, y_um) + 2.5 * self._noise("frayed", 18, x_um, y_um)
        course = np.abs(self._noise("tear", 420, x_um, y_um)) * 170
        opening = 16 * self._noise("tear opens", 520, x_um, y_um) - 19
        opening += 2 * self._noise("tear, ragged", 25, x_um, y_um)
        return np.minimum(outline, course - opening)

    def _class_fields(self, x_um: Floats, y_um: Floats) -> dict[int, Floats]:
        tumour = self._noise("tumour", 270, x_um, y_um) + 0.5 * self._noise("tumour nests", 113, x_um, y_um)
        tumour += 0.14 * self._noise("tumour border", 43, x_um, y_um)
        depth = self._noise("necrosis", 210, x_um, y_um) + 0.2 * self._noise("necrosis border", 61, x_um, y_um)
        immune = self._noise("immune", 180, x_um, y_um) + 0.22 * self._noise("immune border", 67, x_um, y_um)
        other = self._noise("bleeding", 230, x_um, y_um) + 0.22 * self._noise("bleeding border", 73, x_um, y_um)
        # Necrosis lies deep in the tumour; bleeding keeps away from it.
        return {TUMOR: tumour, NECROSIS: depth + 0.9 * tumour, IMMUNE: immune, OTHER: other - 0.3 * tumour}

    @cached_property
    def _thresholds(self) -> dict[int, float]:
        """The limit that each class's field exceeds where the class lies, from samples of the whole slide."""
        x_um, y_um = (
            pixel_centres_um(0, _SAMPLES_AN_AXIS, side_px * self.mpp / _SAMPLES_AN_AXIS)
            for side_px in (self.width_px, self.height_px)
        )
        free = self._tissue_um(x_um, y_um) > 0
        tissue = max(1, int(free.sum()))
        fields = self._class_fields(x_um, y_um)
        thresholds: dict[int, float] = {}

        def cut(label: int, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
            values = fields[label][among]
            share = min(1.0, _SHARE_OF_TISSUE[label] * tissue / max(1, values.size))
            thresholds[label] = float(np.quantile(values, 1 - share)) if values.size else float("inf")
            return among & (fields[label] > thresholds[label])

        tumour = cut(TUMOR, free)
        cut(NECROSIS, tumour)
        immune = cut(IMMUNE, free & ~tumour)
        cut(OTHER, free & ~tumour & ~immune)
        return thresholds
