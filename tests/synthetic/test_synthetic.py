"""Synthetic slides: the same everywhere, in whatever pieces they are made, and as OpenSlide expects them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from sampath_wsi.errors import ConfigError
from sampath_wsi.synthetic import CLASSES, TRUTH_DOWNSAMPLE, Painter, Scene, make_slide
from sampath_wsi.synthetic.noise import derive_seed, smooth_noise, uniform_at

SCENE = Scene(8000, 6000, seed=11)
PAINTER = Painter(SCENE)
# A window with several classes and glass, which all others are compared with.
X, Y, WIDTH, HEIGHT = 900, 3000, 620, 540
WHOLE = PAINTER.paint(X, Y, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Scene]:
    folder = tmp_path_factory.mktemp("slide")
    scene = make_slide(folder / "s.tiff", folder / "t.tiff", width_px=2300, height_px=1500, mpp=0.25, seed=5)
    return folder / "s.tiff", folder / "t.tiff", scene


@settings(max_examples=12)
@given(st.integers(0, WIDTH - 80), st.integers(0, HEIGHT - 80), st.integers(40, 240), st.integers(40, 240))
def test_windows_agree_where_they_overlap(left: int, top: int, width: int, height: int) -> None:
    width, height = min(width, WIDTH - left), min(height, HEIGHT - top)
    part = PAINTER.paint(X + left, Y + top, width, height)
    difference = np.abs(part.astype(int) - WHOLE[top : top + height, left : left + width])
    # Sums in another order may round the last bit the other way.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@settings(max_examples=25)
@given(st.integers(-50, 1900), st.integers(-50, 1400), st.integers(1, 150), st.integers(1, 150))
def test_class_map_does_not_depend_on_the_window(x: int, y: int, width: int, height: int) -> None:
    around = SCENE.class_map(x - 7, y - 13, width + 20, height + 20)
    np.testing.assert_array_equal(SCENE.class_map(x, y, width, height), around[13 : 13 + height, 7 : 7 + width])


def test_same_seed_same_pixels_and_other_seed_other_pixels() -> None:
    again = Painter(Scene(8000, 6000, seed=11)).paint(X, Y, 128, 128)
    np.testing.assert_array_equal(again, WHOLE[:128, :128])
    other = Painter(Scene(8000, 6000, seed=12)).paint(X, Y, 128, 128)
    assert (other != again).mean() > 0.5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_class_has_its_share_and_glass_is_around(seed: int) -> None:
    scene = Scene(8000, 6000, seed=seed)
    labels = scene.class_map(0, 0, *scene.map_size_px)
    share = np.bincount(labels.ravel(), minlength=len(CLASSES) + 1) / labels.size
    assert 0.25 < share[0] < 0.6
    assert share[1:].min() > 0.03
    assert (labels[[0, -1]] == 0).mean() > 0.9


def test_classes_look_different() -> None:
    labels = SCENE.class_map(0, 0, *SCENE.map_size_px)
    looks = {}
    for label in range(len(CLASSES) + 1):
        # A 96 px window that lies in one class.
        whole = np.lib.stride_tricks.sliding_window_view(labels == label, (24, 24))[::8, ::8].all((2, 3))
        row, column = np.argwhere(whole)[0] * 8 * TRUTH_DOWNSAMPLE
        pixels = PAINTER.paint(int(column), int(row), 96, 96)
        looks[label] = np.array([*pixels.mean((0, 1)), *pixels.std((0, 1))])
    assert looks[0][:3].min() > 230
    # Colour or texture tell any two apart.
    assert all(np.abs(looks[a] - looks[b]).max() > 5 for a in looks for b in looks if a < b)
    # Haematoxylin takes more red away than eosin: lymphocytes are bluer than stroma.
    assert looks[3][0] < looks[2][0] - 30


def test_openslide_reads_a_pyramid_with_its_resolution(slide: tuple[Path, Path, Scene]) -> None:
    path, _, scene = slide
    with openslide.OpenSlide(path) as opened:
        assert opened.dimensions == (2300, 1500)
        assert opened.level_count == 2
        assert opened.level_downsamples == pytest.approx((1, 4), rel=0.01)
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        assert float(opened.properties["openslide.mpp-y"]) == pytest.approx(0.25)
        full = np.asarray(opened.read_region((700, 500), 0, (512, 512)).convert("RGB"), float)
        low = np.asarray(opened.read_region((700 // 16 * 16, 500 // 16 * 16), 1, (128, 128)).convert("RGB"), float)
    painter = Painter(scene)
    assert np.abs(full - painter.paint(700, 500, 512, 512)).mean() < 4  # JPEG

    def difference(shift_px: int) -> float:
        painted = painter.paint(700 // 16 * 16 + shift_px, 500 // 16 * 16, 512, 512)
        return float(np.abs(low - painted.reshape(128, 4, 128, 4, 3).mean((1, 3))).mean())

    assert difference(0) < 6
    # Half a pixel of this level aside is already worse: the levels lie on each other.
    assert difference(0) < min(difference(-2), difference(2))


def test_truth_is_the_scenes_class_map(slide: tuple[Path, Path, Scene]) -> None:
    _, truth, scene = slide
    labels = tifffile.imread(truth)
    assert labels.dtype == np.uint8
    assert labels.shape == (375, 575)
    np.testing.assert_array_equal(labels, scene.class_map(0, 0, 575, 375))


def test_slide_is_written_aside_and_is_the_same_again(slide: tuple[Path, Path, Scene], tmp_path: Path) -> None:
    path, truth, _ = slide
    make_slide(tmp_path / "s.tiff", tmp_path / "t.tiff", width_px=2300, height_px=1500, mpp=0.25, seed=5)
    assert (tmp_path / "s.tiff").read_bytes() == path.read_bytes()
    assert (tmp_path / "t.tiff").read_bytes() == truth.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.tiff", "t.tiff"]


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Painter, "paint", fail)
    with pytest.raises(OSError, match="no space left"):
        make_slide(tmp_path / "s.tiff", width_px=600, height_px=600)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("width_px", "mpp"), [(100, 0.25), (1000, 0.0), (1000, float("nan"))])
def test_impossible_slides_are_refused(width_px: int, mpp: float) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        Scene(width_px, 1000, mpp)


def test_resolution_scales_the_same_tissue() -> None:
    fine, coarse = Scene(4000, 4000, 0.25, seed=3), Scene(2000, 2000, 0.5, seed=3)
    near = fine.class_map(0, 0, 1000, 1000)[1::2, 1::2]
    assert (near == coarse.class_map(0, 0, 500, 500)).mean() > 0.98


def test_noise_has_mean_0_and_variance_1_and_seeds_differ() -> None:
    axis = np.arange(0, 4000, 5.0)
    field = smooth_noise(axis, axis, 20.0, 7)
    assert abs(field.mean()) < 0.02
    assert field.std() == pytest.approx(1, abs=0.05)
    assert abs((field * smooth_noise(axis, axis, 20.0, 8)).mean()) < 0.05
    assert derive_seed(1, "a", "b") != derive_seed(1, "ab")
    draws = uniform_at(np.arange(-200, 200)[None, :], np.arange(-200, 200)[:, None], 3)
    assert draws.mean() == pytest.approx(0.5, abs=0.005)
    assert len(np.unique(draws)) == draws.size
