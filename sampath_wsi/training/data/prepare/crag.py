"""CRAG: images of colon glands with instance masks, in the layout of its archive."""

from __future__ import annotations

from pathlib import Path

from sampath_wsi.errors import DataError
from sampath_wsi.progress import Progress
from sampath_wsi.training.data.pictures import check_folder, check_present, pictures_in
from sampath_wsi.training.data.prepare.coding import Coding, load_coding
from sampath_wsi.training.data.prepare.masks import MaskedImage, write_masked_images
from sampath_wsi.training.data.prepare.tally import Summary

HOW = (
    "Download CRAG (https://warwick.ac.uk/fac/cross_fac/tia/data/mildnet) and name the folder that holds "
    "train/Images, train/Annotation, valid/Images and valid/Annotation."
)
# Folders of the archive, in its versions, and the split that each is.
_SPLITS = {"train": "train", "valid": "test", "test": "test"}
_MASK_FOLDERS = ("Annotation", "Annotations")


def prepare_crag(
    source: str | Path,
    out: str | Path,
    *,
    coding: Coding | None = None,
    tile_px: int | None = None,
    mpp: float | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Prepare CRAG, or glands in its layout; images stay whole unless ``tile_px`` is given.

    The archive does not say which images are of one patient: each image is a group of its own. ``valid/`` (``test/`` in
    later versions) is the split ``test``.

    Parameters
    ----------
    source
        The archive's folder.
    coding
        What the masks' codes mean; by default the one that ships.
    tile_px, mpp
        See :func:`sampath_wsi.training.data.prepare.masks.write_masked_images`.

    Raises
    ------
    DataError
        Naming what is missing or does not fit.
    """
    source, coding = Path(source), coding or load_coding("crag")
    check_folder(source, HOW)
    folders = [name for name in _SPLITS if (source / name).is_dir()]
    if "train" not in folders or len(folders) < 2:
        raise DataError(f"{source}: it has not both train/ and valid/", HOW)
    pairs: dict[str, MaskedImage] = {}
    warnings: list[str] = []
    for folder in folders:
        for pair in _folder(source / folder, _SPLITS[folder], warnings):
            if pair.name in pairs:
                raise DataError(f"{pair.image} has the name of {pairs[pair.name].image}", "Rename one, with its mask.")
            pairs[pair.name] = pair
    return write_masked_images(
        list(pairs.values()), out, coding, tile_px=tile_px, mpp=mpp, warnings=warnings, progress=progress
    )


def _folder(folder: Path, split: str, warnings: list[str]) -> list[MaskedImage]:
    annotations = next((folder / name for name in _MASK_FOLDERS if (folder / name).is_dir()), folder / _MASK_FOLDERS[0])
    images, masks = pictures_in(folder / "Images", HOW), pictures_in(annotations, HOW)
    check_present([masks.get(name, annotations / path.name) for name, path in images.items()], HOW)
    extra = sorted(masks.keys() - images.keys())
    if extra:  # The first version of the archive came with five such masks.
        warnings.append(f"{len(extra)} masks without an image left out, the first is {masks[extra[0]]}")
    return [MaskedImage(name, path, masks[name], name, split) for name, path in images.items()]
