"""Published data sets of images with masks of codes: BCSS, CRAG and GlaS, as their users download them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sampath_wsi.errors import DataError
from sampath_wsi.progress import Progress
from sampath_wsi.training.data.pictures import (
    check_folder,
    check_present,
    pictures_in,
    read_codes,
    read_rgb,
    read_table,
)
from sampath_wsi.training.data.prepare.label_map import LabelMap, load_label_map
from sampath_wsi.training.data.prepared import TEST, TRAIN
from sampath_wsi.training.data.prepared_writer import LabelledImage, Summary, write_prepared
from sampath_wsi.training.data.windows import cover

MaskedDataset = Literal["bcss", "crag", "glas"]


@dataclass(frozen=True)
class MaskedImage:
    """One image of a data set with its mask, before either is read."""

    name: str
    image: Path
    mask: Path
    group: str
    split: str


def prepare_masks(
    dataset: MaskedDataset,
    source: str | Path,
    out: str | Path,
    *,
    label_map: LabelMap | None = None,
    tile_px: int | None = None,
    mpp: float | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Read, check, encode and cut the images of a data set, and write them in the prepared layout.

    An image is read once; one without any label is left out. Tiles are spread evenly
    (:func:`sampath_wsi.training.data.windows.spread`), lie in the field that is named like their image, and are called
    ``IMAGE_Y_X``, which are the names that SAM-Path's authors use; so all of them are kept.

    ========  ====================================================  =================================================
    data set  ``source``                                            group; split
    ========  ====================================================  =================================================
    bcss      ``images/`` (or ``rgbs_colorNormalized/``) and        patient (there is one slide of each); ``test`` for
              ``masks/``, files named alike in both                 the sites that the label map names, else ``train``
    crag      ``train/`` and ``valid/`` (or ``test/``), each with   each image, for the archive does not say which are
              ``Images/`` and ``Annotation/``                       of one patient; ``train``, ``test``
    glas      ``Grade.csv`` and the images; or ``samples.csv``      patient; ``train``, ``testA``, ``testB``, which
              (name, split, patient), ``images/`` and ``masks/``    share patients
    ========  ====================================================  =================================================

    Parameters
    ----------
    source
        The folder of the download, or data in its layout.
    label_map
        Classes of the masks' codes; by default the one that ships.
    tile_px
        Side of the tiles; 0 keeps images whole, None takes the label map's.
    mpp
        Resolution of the images, if it is not the label map's (of BCSS: as in their names, see :func:`true_mpp`).
        It is recorded; nothing is resampled.

    Raises
    ------
    DataError
        Its message names the missing or unfitting file. No output is left.
    """
    source, label_map = Path(source), label_map or load_label_map(dataset)
    check_folder(source, HOW[dataset])
    warnings: list[str] = []
    images = _FIND[dataset](source, label_map, warnings)
    if mpp is None:
        mpp = _named_mpp(images, label_map, warnings) if dataset == "bcss" else label_map.mpp
    found = Counter(image.split for image in images)
    warnings += [
        f"{label_map.name} has {expected} images in {split}, here are {found[split]}"
        for split, expected in label_map.expected_images.items()
        if found[split] != expected
    ]
    tile_px = label_map.tile_px if tile_px is None else tile_px
    info = label_map.dataset_info(mpp, f"tiles of {tile_px} px" if tile_px else "whole images")
    binary: list[Path] = []
    sources = {image.name: partial(_cut, image, label_map, tile_px, binary) for image in images}
    summary = write_prepared(out, info, sources, "images", warnings, progress)
    if binary:
        warning = (
            f"{len(binary)} masks do not tell instances apart, the first is {binary[0]}: connected regions are taken "
            "for instances, so that those which touch are one"
        )
        summary = replace(summary, warnings=(warning, *summary.warnings))
    return summary


def _cut(source: MaskedImage, label_map: LabelMap, tile_px: int, binary: list[Path]) -> Iterator[LabelledImage]:
    """Yield the tiles of an image; a mask of one code in several regions is added to ``binary``."""
    image, codes = read_rgb(source.image), read_codes(source.mask)
    if image.shape[:2] != codes.shape:
        raise DataError(
            f"{source.mask}: the mask is {codes.shape[1]} x {codes.shape[0]} px, "
            f"its image {image.shape[1]} x {image.shape[0]} px",
            f"Get the pair again: {source.image}.",
        )
    labels = label_map.encode(codes, source.mask)
    if not labels.any():
        return
    instances = codes if label_map.instances else None
    if instances is not None and (regions := _regions_of_binary(codes, source.mask)) is not None:
        instances = regions
        binary.append(source.mask)
    height, width = labels.shape
    side = tile_px or max(width, height)
    for x, y in cover(width, height, side):
        part = slice(y, y + side), slice(x, x + side)
        yield LabelledImage(
            f"{source.name}_{y}_{x}" if tile_px else source.name,
            image[part],
            labels[part],
            source.group,
            source.split,
            None if instances is None else instances[part],
            field=source.name,
            x_px=x,
            y_px=y,
        )


def _regions_of_binary(codes: NDArray[np.integer], where: Path) -> NDArray[np.integer] | None:
    """Return the connected regions (also by corners) of a mask of one code besides 0, numbered from 1.

    None if it has several codes, which then tell instances apart, or a single region.
    """
    inside = codes > 0
    found = codes[inside]
    if not found.size or found.min() != found.max():
        return None
    regions, count = ndimage.label(inside, np.ones((3, 3)))
    if count >= 2**16:
        raise DataError(f"{where}: its one code has {count} regions", "Instances are at most 65535: clean the mask.")
    return regions if count > 1 else None


# --- BCSS -------------------------------------------------------------------------------------------------------------

# The downloader's name for the folder, and that of the shared archive.
_BCSS_IMAGES = ("images", "rgbs_colorNormalized")
_BARCODE = re.compile(r"(?P<patient>TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4})-")
_MPP = re.compile(r"_MPP-(?P<mpp>\d+\.\d+)")


def _find_bcss(source: Path, label_map: LabelMap, warnings: list[str]) -> list[MaskedImage]:
    how = HOW["bcss"]
    folder, folder_of_masks = _first_folder(source, _BCSS_IMAGES), source / "masks"
    images, masks = pictures_in(folder, how), pictures_in(folder_of_masks, how)
    check_present([masks.get(name, folder_of_masks / path.name) for name, path in images.items()], how)
    check_present([images.get(name, folder / path.name) for name, path in masks.items()], how)
    found = []
    for name, image in images.items():
        barcode = _BARCODE.match(name)
        if barcode is None:
            raise DataError(f"{image}: its name does not begin with a TCGA barcode", "Keep the names of the download.")
        split = TEST if barcode["site"] in label_map.test_sites else TRAIN
        found.append(MaskedImage(name, image, masks[name], barcode["patient"], split))
    return found


def true_mpp(named_mpp: float) -> float:
    """Return the resolution of images that the downloader calls ``MPP-0.2500``, and so on.

    It asks the server for millimetres a pixel with four decimals: 0.25 um goes out as 0.0003 mm, which is 0.30 um.
    """
    return float(f"{float(f'{named_mpp / 1000:.4f}') * 1000:.4f}")


def _named_mpp(images: Sequence[MaskedImage], label_map: LabelMap, warnings: list[str]) -> float:
    """Return the true resolution of images by their names, or the label map's; warn if they do not say it."""
    named = {float(match["mpp"]): image.image.name for image in images if (match := _MPP.search(image.image.name))}
    if not named:
        warnings.append(f"the images' names say no MPP, {label_map.mpp:g} um/px is taken for true")
        return label_map.mpp
    if len(named) > 1:
        (one, first), (other, second) = list(named.items())[:2]
        raise DataError(
            f"{first} has {one:g} um/px by its name and {second} has {other:g}",
            "Prepare each resolution by itself, or name the true one with --mpp.",
        )
    ((mpp, name),) = named.items()
    true = true_mpp(mpp)
    if true <= 0:
        raise DataError(f"{name}: MPP-{mpp:.4f} is no resolution", "Name the true one with --mpp.")
    if abs(true - mpp) >= 1e-6:
        warnings.append(f"images named MPP-{mpp:.4f} have in truth {true:.2f} um/px (docs/data.md), which is recorded")
    return true


# --- CRAG -------------------------------------------------------------------------------------------------------------

# Folders of the archive, in its versions, and the split that each is.
_CRAG_SPLITS = {"train": TRAIN, "valid": TEST, "test": TEST}
_CRAG_MASKS = ("Annotation", "Annotations")


def _find_crag(source: Path, label_map: LabelMap, warnings: list[str]) -> list[MaskedImage]:
    how = HOW["crag"]
    folders = [name for name in _CRAG_SPLITS if (source / name).is_dir()]
    if "train" not in folders or len(folders) < 2:
        raise DataError(f"{source}: it has not both train/ and valid/", how)
    found: dict[str, MaskedImage] = {}
    for folder in folders:
        annotations = _first_folder(source / folder, _CRAG_MASKS)
        images, masks = pictures_in(source / folder / "Images", how), pictures_in(annotations, how)
        check_present([masks.get(name, annotations / path.name) for name, path in images.items()], how)
        if extra := sorted(masks.keys() - images.keys()):  # The first version of the archive came with five such masks.
            warnings.append(f"{len(extra)} masks without an image left out, the first is {masks[extra[0]]}")
        for name, image in images.items():
            if name in found:
                raise DataError(f"{image} has the name of {found[name].image}", "Rename one, with its mask.")
            found[name] = MaskedImage(name, image, masks[name], name, _CRAG_SPLITS[folder])
    return list(found.values())


# --- GlaS -------------------------------------------------------------------------------------------------------------


def _find_glas(source: Path, label_map: LabelMap, warnings: list[str]) -> list[MaskedImage]:
    how = HOW["glas"]
    sheet, patient, columns = source / "samples.csv", "patient", ["name", "split", "patient"]
    if not sheet.is_file():
        sheet, patient, columns = source / "Grade.csv", "patient ID", ["name", "patient ID"]
    found = []
    for name, row in read_table(sheet, columns, how).items():
        if empty := [column for column in columns if not row[column]]:
            raise DataError(f"{sheet}, row of {name!r}: the column {empty[0]} is empty", "Download or copy it again.")
        if "split" in columns:
            image, mask, split = source / "images" / f"{name}.png", source / "masks" / f"{name}.png", row["split"]
        else:
            image, mask, split = source / f"{name}.bmp", source / f"{name}_anno.bmp", name.rpartition("_")[0]
        found.append(MaskedImage(name, image, mask, f"patient{row[patient]}", split))
    check_present([path for image in found for path in (image.image, image.mask)], how)
    return found


def _first_folder(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of some folders that is there, else the first."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])


HOW: dict[MaskedDataset, str] = {
    "bcss": "Download BCSS (https://github.com/PathologyDataScience/BCSS, or "
    "https://bcsegmentation.grand-challenge.org/BCSS) and name the folder that holds images/ and masks/.",
    "crag": "Download CRAG (https://warwick.ac.uk/fac/cross_fac/tia/data/mildnet) and name the folder that holds "
    "train/Images, train/Annotation, valid/Images and valid/Annotation.",
    "glas": "Download GlaS (https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest) and name the folder that holds "
    "Grade.csv, train_1.bmp, train_1_anno.bmp and so on (or samples.csv, images/ and masks/).",
}
_FIND: dict[MaskedDataset, Callable[[Path, LabelMap, list[str]], list[MaskedImage]]] = {
    "bcss": _find_bcss,
    "crag": _find_crag,
    "glas": _find_glas,
}
