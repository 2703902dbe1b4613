"""Models and public encoder weights that are known by name, and their files in the package or the cache."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ModelError
from sampath_wsi.files import sha256 as sha256_of
from sampath_wsi.model.card import (
    CARD_NAME,
    WEIGHTS_NAME,
    Architecture,
    ModelCard,
    PathologyEncoderSpec,
    SamEncoderSpec,
)
from sampath_wsi.progress import Progress

log = logging.getLogger(__name__)

ZOO_DIR = Path(__file__).parent / "zoo"
CACHE_VARIABLE = "SAMPATH_WSI_CACHE"
_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"


def cache_dir() -> Path:
    """Return the folder of downloaded encoders and named models: ``$SAMPATH_WSI_CACHE`` or ``~/.cache/sampath_wsi``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "sampath_wsi")


# -- the paper's models ---------------------------------------------------------------------------------------

BCSS_CLASSES = (
    TissueClass(name="Tumor", color=(200, 0, 0)),
    TissueClass(name="Stroma", color=(150, 200, 150)),
    TissueClass(name="Inflammatory", color=(160, 90, 160)),
    TissueClass(name="Necrosis", color=(50, 50, 50)),
    TissueClass(name="Other", color=(255, 200, 0)),
)
CRAG_CLASSES = (
    TissueClass(name="Background", color=(180, 180, 180)),
    TissueClass(name="Gland", color=(200, 0, 0)),
)


def _templates(suffix: str, title: str, architecture: Architecture) -> tuple[ModelCard, ModelCard]:
    bcss = ModelCard(
        name=f"sampath-bcss{suffix}",
        description=f"{title} for breast cancer tissue (BCSS), as in the paper's Table 1",
        architecture=architecture,
        classes=BCSS_CLASSES,
        # The images that BCSS calls 0.25 um/px are in truth about 0.30.
        mpp=0.30,
        tile_px=1024,
        overlap_px=128,
        data="BCSS: 151 regions of TCGA-BRCA slides",
        limitations="Breast cancer only; not for diagnostic use.",
    )
    crag = ModelCard(
        name=f"sampath-crag{suffix}",
        description=f"{title} for glands of the colon (CRAG), as in the paper's Table 1",
        architecture=architecture,
        classes=CRAG_CLASSES,
        mpp=0.50,
        tile_px=1536,
        overlap_px=192,
        data="CRAG: 213 images of colorectal adenocarcinoma at 20x",
        limitations="Colorectal tissue only; not for diagnostic use.",
    )
    return bcss, crag


_SAM, _HIPT = SamEncoderSpec.preset("vit_b"), PathologyEncoderSpec.hipt()
TEMPLATES: dict[str, ModelCard] = {
    card.name: card
    for cards in (
        _templates("", "SAM-Path", Architecture(sam=_SAM, pathology=_HIPT)),
        _templates("-no-pathology", "Fine-tuned SAM (SAM-Path without the pathology encoder)", Architecture(sam=_SAM)),
        _templates("-no-sam", "SAM-Path without SAM's encoder", Architecture(pathology=_HIPT)),
    )
    for card in cards
}
"""Cards of Table 1's models. Their weights cannot be shipped: one trains them or converts the authors' checkpoint."""


def template_card(name: str) -> ModelCard:
    """Return the card of one of the paper's models.

    Raises
    ------
    ModelError
        If there is none of that name.
    """
    if name not in TEMPLATES:
        raise ModelError(f"there is no model template '{name}'", f"Choose one of {', '.join(TEMPLATES)}.")
    return TEMPLATES[name]


# -- models that are here -------------------------------------------------------------------------------------


def known_models() -> list[str]:
    """Return the names that :func:`resolve_model` knows: those that ship, in the cache, or of the paper."""
    return sorted({*installed_models(), *TEMPLATES})


def installed_models() -> list[str]:
    """Return the names of the models that are here: those that ship, and those in the cache."""
    return sorted({card.parent.name for folder in _folders() for card in folder.glob(f"*/{CARD_NAME}")})


def resolve_model(name_or_path: str | Path) -> Path:
    """Return the folder of a model's bundle.

    Parameters
    ----------
    name_or_path
        A folder with a ``card.json``, that card, or a name: of a model that ships, of one in the cache
        (``models/<name>/``), or of one of the paper's models.

    Raises
    ------
    ModelError
        If there is no such model; for the paper's models it says how to get one.
    """
    path, name = Path(name_or_path), str(name_or_path)
    if path.name == CARD_NAME and path.is_file():
        return path.parent
    if (path / CARD_NAME).is_file():
        return path
    if name in installed_models():
        return next(folder / name for folder in _folders() if (folder / name / CARD_NAME).is_file())
    if name in TEMPLATES:
        raise ModelError(
            f"the weights of '{name}' do not ship and cannot be downloaded",
            f"Train the model, or convert the authors' checkpoint with 'sampath-wsi model convert CHECKPOINT "
            f"{cache_dir() / 'models' / name} --template {name}'.",
        )
    if path.exists():
        raise ModelError(f"{path}: not a model, it holds no {CARD_NAME}", "Name the folder of a model.")
    raise ModelError(
        f"there is no model '{name}'", f"Give the path of a model's folder, or one of {', '.join(known_models())}."
    )


def installed_card(name_or_path: str | Path) -> ModelCard:
    """Return the card of a model that is here, with the SHA-256 of its weights filled in.

    Raises
    ------
    ModelError
        As :func:`resolve_model`, or if its card cannot be read.
    """
    path = resolve_model(name_or_path)
    card = ModelCard.read(path / CARD_NAME)
    if card.weights_sha256 or not (path / WEIGHTS_NAME).is_file():
        return card
    return card.model_copy(update={"weights_sha256": sha256_of(path / WEIGHTS_NAME)})


def _folders() -> tuple[Path, Path]:
    return ZOO_DIR, cache_dir() / "models"


# -- public weights of encoders -------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncoderWeights:
    """One public checkpoint: its name here, the name of its file, where it is published, and its content and terms."""

    name: str
    file_name: str
    url: str
    bytes: int
    sha256: str
    licence: str

    @property
    def cached_path(self) -> Path:
        """Return the path of a copy in the cache, which may have been put there by hand."""
        return cache_dir() / "encoders" / self.file_name


def _sam(version: str, size_bytes: int, sha256: str) -> EncoderWeights:
    """Return a SAM's weights as published (``sam_VERSION.pth``), named without the digits that end the version."""
    file_name = f"sam_{version}.pth"
    name = f"sam_{version.rpartition('_')[0]}"
    return EncoderWeights(name, file_name, _SAM_URL + file_name, size_bytes, sha256, "Apache-2.0")


ENCODERS: dict[str, EncoderWeights] = {
    weights.name: weights
    for weights in (
        _sam("vit_b_01ec64", 375_042_383, "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
        _sam("vit_l_0b3195", 1_249_524_607, "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
        _sam("vit_h_4b8939", 2_564_550_879, "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
        EncoderWeights(
            name="hipt_vit_small",
            file_name="vit256_small_dino.pth",
            url="https://github.com/mahmoodlab/HIPT/raw/master/HIPT_4K/Checkpoints/vit256_small_dino.pth",
            bytes=704_238_867,
            sha256="6960cd5a8657dc8bb214671aa0c6dbd3f5b698e84386884955836487ddc89e24",
            licence="Apache-2.0 with Commons Clause: non-commercial academic use only",
        ),
    )
}


def find_encoder(name_or_path: str | Path, progress: Progress | None = None) -> Path:
    """Return the file of an encoder's weights: a path as it is, a known name from the cache or by download.

    Parameters
    ----------
    name_or_path
        An existing file, or a name in :data:`ENCODERS`. A file in the cache is checked against its known SHA-256; a
        file given by path may be any checkpoint of the same format.
    progress
        Told how a download advances; without it a bar is shown on a terminal.

    Raises
    ------
    ModelError
        If there is no such file or name, a cached file is damaged, or the download fails; then it says which file to
        put where.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    weights = ENCODERS.get(str(name_or_path))
    if weights is None:
        raise ModelError(
            f"{name_or_path}: there are no such encoder weights",
            f"Give the path of a checkpoint, or one of {', '.join(ENCODERS)}.",
        )
    path = weights.cached_path
    if not path.is_file():
        return _download(weights, progress)
    size, found = path.stat().st_size, ""
    if size != weights.bytes:
        found = f"{size} bytes instead of {weights.bytes}"
    elif sha256_of(path) != weights.sha256:
        found = "another SHA-256 than published"
    if found:
        raise ModelError(
            f"{path}: damaged or not the published file ({found})", f"Delete it; it comes from {weights.url}."
        )
    return path


class _Bar:
    """A progress bar as pooch wants it, that counts megabytes."""

    def __init__(self, progress: Progress) -> None:
        self.total, self._done, self._progress = 0, 0, progress

    def update(self, more: int) -> None:
        self._done = min(self._done + more, self.total)
        self._progress(round(self._done / 1e6), max(1, round(self.total / 1e6)), "MB")

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None: ...


def _download(weights: EncoderWeights, progress: Progress | None) -> Path:
    import pooch
    import requests

    path = weights.cached_path
    log.info("downloading %s (%.0f MB) from %s", weights.name, weights.bytes / 1e6, weights.url)
    bar = sys.stderr.isatty() if progress is None else _Bar(progress)
    try:
        pooch.retrieve(
            weights.url,
            known_hash=f"sha256:{weights.sha256}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 20),
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise ModelError(
            f"the weights '{weights.name}' cannot be downloaded ({type(error).__name__})",
            f"Without internet access, get {weights.url} elsewhere and put it at {path}.",
        ) from error
    return path
