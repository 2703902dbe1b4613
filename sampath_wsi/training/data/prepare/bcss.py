"""BCSS: regions of breast cancer slides with masks of 21 codes, as its downloader leaves them."""

from __future__ import annotations

import re
from pathlib import Path

from sampath_wsi.errors import DataError
from sampath_wsi.progress import Progress
from sampath_wsi.training.data.pictures import check_folder, check_present, pictures_in
from sampath_wsi.training.data.prepare.coding import Coding, load_coding
from sampath_wsi.training.data.prepare.masks import MaskedImage, write_masked_images
from sampath_wsi.training.data.prepare.tally import Summary

HOW = (
    "Download BCSS (https://github.com/PathologyDataScience/BCSS, or https://bcsegmentation.grand-challenge.org/BCSS) "
    "and name the folder that holds images/ and masks/."
)
# The downloader's name for the folder, and that of the shared archive.
_IMAGE_FOLDERS = ("images", "rgbs_colorNormalized")
_BARCODE = re.compile(r"(?P<patient>TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4})-")
_MPP = re.compile(r"_MPP-(?P<mpp>\d+\.\d+)")


def prepare_bcss(
    source: str | Path,
    out: str | Path,
    *,
    coding: Coding | None = None,
    tile_px: int | None = None,
    mpp: float | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Prepare BCSS: tiles in the layout of SAM-Path's authors, or of any other size.

    Group is the patient (``TCGA-XX-XXXX``; there is one slide of each). The split is ``test`` for the sites that the
    coding names, else ``train``.

    Parameters
    ----------
    source
        Folder with ``images/`` (or ``rgbs_colorNormalized/``) and ``masks/``, files named alike in both.
    coding
        What the masks' codes mean, and which sites are for testing; by default the one that ships.
    tile_px
        Side of the tiles; 0 keeps regions whole; by default the coding's 1024.
    mpp
        Resolution of the images; by default what their names mean, see :func:`true_mpp`.

    Raises
    ------
    DataError
        Naming what is missing or does not fit.
    """
    source, coding = Path(source), coding or load_coding("bcss")
    check_folder(source, HOW)
    folder = next((source / name for name in _IMAGE_FOLDERS if (source / name).is_dir()), source / "images")
    images, masks = pictures_in(folder, HOW), pictures_in(source / "masks", HOW)
    check_present([masks.get(name, source / "masks" / path.name) for name, path in images.items()], HOW)
    check_present([images.get(name, folder / path.name) for name, path in masks.items()], HOW)
    pairs = [_pair(name, path, masks[name], coding) for name, path in images.items()]
    warnings: list[str] = []
    if mpp is None:
        mpp, warnings = _resolution(list(images.values()), coding)
    return write_masked_images(pairs, out, coding, tile_px=tile_px, mpp=mpp, warnings=warnings, progress=progress)


def true_mpp(named_mpp: float) -> float:
    """The resolution of images that the downloader calls ``MPP-0.2500``, and so on.

    It asks the server for millimetres a pixel with four decimals: 0.25 um goes out as 0.0003 mm, which is 0.30 um.
    """
    return float(f"{float(f'{named_mpp / 1000:.4f}') * 1000:.4f}")


def _pair(name: str, image: Path, mask: Path, coding: Coding) -> MaskedImage:
    barcode = _BARCODE.match(name)
    if barcode is None:
        raise DataError(f"{image}: its name does not begin with a TCGA barcode", "Keep the names of the download.")
    split = "test" if barcode["site"] in coding.test_sites else "train"
    return MaskedImage(name, image, mask, barcode["patient"], split)


def _resolution(images: list[Path], coding: Coding) -> tuple[float, list[str]]:
    named = {float(match["mpp"]): path for path in images if (match := _MPP.search(path.name))}
    if not named:
        return coding.mpp, [f"the images' names say no MPP, {coding.mpp:g} um/px is taken for true"]
    if len(named) > 1:
        (one, first), (other, second) = list(named.items())[:2]
        raise DataError(
            f"{first.name} has {one:g} um/px by its name and {second.name} has {other:g}",
            "Prepare each resolution by itself, or name the true one with --mpp.",
        )
    (mpp,) = named
    true = true_mpp(mpp)
    if true <= 0:
        raise DataError(f"{named[mpp].name}: MPP-{mpp:.4f} is no resolution", "Name the true one with --mpp.")
    if abs(true - mpp) < 1e-6:
        return true, []
    return true, [f"images named MPP-{mpp:.4f} have in truth {true:.2f} um/px (docs/data.md), which is recorded"]
