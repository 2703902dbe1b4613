"""The public weights of encoders: where they are, what they weigh, and how a copy is found or fetched."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from sampath_wsi.errors import ModelError
from sampath_wsi.files import sha256 as sha256_of
from sampath_wsi.model.zoo import cache_dir
from sampath_wsi.progress import Progress

log = logging.getLogger(__name__)

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"


@dataclass(frozen=True)
class EncoderWeights:
    """One public checkpoint.

    Attributes
    ----------
    name
        What it is called here, e.g. in a training configuration.
    file_name
        What the file is called where it is published, and in the cache.
    url
        Where it is published.
    bytes
        Its exact size.
    sha256
        Its SHA-256, in hexadecimal.
    licence
        The terms under which it may be used.
    """

    name: str
    file_name: str
    url: str
    bytes: int
    sha256: str
    licence: str

    @property
    def cached_path(self) -> Path:
        """Where a copy lies, or has to be put by hand."""
        return cache_dir() / "encoders" / self.file_name


def _sam(version: str, size_bytes: int, sha256: str) -> EncoderWeights:
    """A SAM as its authors publish it: ``sam_VERSION.pth``, known here without the digits at the end of the version."""
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
    """The file of an encoder's weights: a path as it is, a known name from the cache or by download.

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
    if weights.cached_path.is_file():
        _check_copy(weights)
        return weights.cached_path
    return _download(weights, progress)


def _check_copy(weights: EncoderWeights) -> None:
    path = weights.cached_path
    size = path.stat().st_size
    if size != weights.bytes:
        found = f"{size} bytes instead of {weights.bytes}"
    elif sha256_of(path) != weights.sha256:
        found = "another SHA-256 than published"
    else:
        return
    raise ModelError(f"{path}: damaged or not the published file ({found})", f"Delete it; it comes from {weights.url}.")


class _Bytes:
    """What pooch takes for a progress bar."""

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
    bar = sys.stderr.isatty() if progress is None else _Bytes(progress)
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
