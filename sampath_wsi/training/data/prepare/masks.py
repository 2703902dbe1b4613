"""Images with masks of codes: what is common to BCSS, CRAG and GlaS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sampath_wsi.errors import DataError
from sampath_wsi.progress import Progress
from sampath_wsi.training.data.pictures import read_codes, read_rgb
from sampath_wsi.training.data.prepare.coding import Coding
from sampath_wsi.training.data.prepare.tally import Summary, Tally
from sampath_wsi.training.data.prepared import DatasetInfo
from sampath_wsi.training.data.prepared_writer import PreparedWriter
from sampath_wsi.training.data.windows import cover


@dataclass(frozen=True)
class MaskedImage:
    """One image of a data set with its mask, before either is read."""

    name: str
    image: Path
    mask: Path
    group: str
    split: str


def write_masked_images(
    images: Sequence[MaskedImage],
    out: str | Path,
    coding: Coding,
    *,
    tile_px: int | None = None,
    mpp: float | None = None,
    warnings: Sequence[str] = (),
    progress: Progress | None = None,
) -> Summary:
    """Read, check, encode and cut images, and write them in the prepared layout.

    An image is read once; one without any label is left out. Tiles are spread evenly
    (:func:`sampath_wsi.training.data.windows.spread`), lie in the field that is named like their image, and are called
    ``IMAGE_Y_X``, which are the names that SAM-Path's authors use; so all of them are kept.

    Parameters
    ----------
    tile_px
        Side of the tiles; 0 keeps images whole, None takes the coding's.
    mpp
        Resolution of the images, if it is not the coding's. It is recorded; nothing is resampled.
    warnings
        What was found before.

    Raises
    ------
    DataError
        Naming the file that does not fit. Nothing is left then.
    """
    tile_px = coding.tile_px if tile_px is None else tile_px
    tally = Tally(coding.tissue_classes)
    tally.warnings += [*warnings, *_incomplete(images, coding)]
    info = DatasetInfo(
        name=coding.name,
        classes=coding.tissue_classes,
        mpp=mpp or coding.mpp,
        description=f"{coding.description}; {f'tiles of {tile_px} px' if tile_px else 'whole images'}".lstrip("; "),
    )
    with PreparedWriter(out, info) as writer:
        for done, source in enumerate(images, 1):
            _write(writer, tally, source, coding, tile_px)
            if progress is not None:
                progress(done, len(images), "images")
        return tally.summary(Path(out))


def _incomplete(images: Sequence[MaskedImage], coding: Coding) -> list[str]:
    found = Counter(image.split for image in images)
    return [
        f"{coding.name} has {expected} images in {split}, here are {found[split]}"
        for split, expected in coding.expected_images.items()
        if found[split] != expected
    ]


def _write(writer: PreparedWriter, tally: Tally, source: MaskedImage, coding: Coding, tile_px: int) -> None:
    image, codes = read_rgb(source.image), read_codes(source.mask)
    if image.shape[:2] != codes.shape:
        raise DataError(
            f"{source.mask}: the mask is {codes.shape[1]} x {codes.shape[0]} px, "
            f"its image {image.shape[1]} x {image.shape[0]} px",
            f"Get the pair again: {source.image}.",
        )
    labels = coding.encode(codes, source.mask)
    if not labels.any():
        tally.leave_out(source.name)
        return
    height, width = labels.shape
    for x, y in cover(width, height, tile_px or max(width, height)):
        side = tile_px or max(width, height)
        part = slice(y, y + side), slice(x, x + side)
        tally.count(labels[part], source.group, source.split)
        writer.add(
            f"{source.name}_{y}_{x}" if tile_px else source.name,
            image[part],
            labels[part],
            source.group,
            source.split,
            instances=codes[part] if coding.instances else None,
            field=source.name,
            x_px=x,
            y_px=y,
        )
