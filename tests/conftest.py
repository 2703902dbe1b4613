"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# As the command line does, before NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# No example is timed: on a busy machine it takes as long as it takes. The same examples are drawn each time.
settings.register_profile("untimed", deadline=None, derandomize=True)
settings.load_profile("untimed")

# What is started in the background ignores these signals, and so would all that it starts.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Every test draws the same numbers of torch, in whatever order the tests run."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides and parity data beside the checkout; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no development data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the real architecture, as small as it gets, with random weights: tiles of 128 px at 0.5 um/px."""
    import torch

    from sampath_wsi.classes import TissueClass
    from sampath_wsi.model.bundle import save_bundle
    from sampath_wsi.model.card import Architecture, ModelCard, PathologyEncoderSpec, SamEncoderSpec
    from sampath_wsi.model.sampath import SamPath

    torch.manual_seed(0)
    architecture = Architecture(
        image_size=128,
        sam=SamEncoderSpec(embed_dim=32, depth=2, heads=2, global_blocks=(1,), window=4),
        pathology=PathologyEncoderSpec(name="vit_tiny_patch16_224", kwargs={"depth": 1}),
        decoder_dim=32,
    )
    classes = (
        TissueClass(name="Tumor", color=(200, 0, 0)),
        TissueClass(name="Stroma", color=(150, 200, 150)),
        TissueClass(name="Necrosis", color=(50, 50, 50)),
    )
    card = ModelCard(name="tiny", architecture=architecture, classes=classes, mpp=0.5, tile_px=128, overlap_px=16)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_bundle(folder, SamPath(architecture, len(classes)), card)
    return folder
