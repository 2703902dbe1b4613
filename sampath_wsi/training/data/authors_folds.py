"""The folds of SAM-Path's authors: ``dataset_cfg/BCSS_cv.csv`` and ``CRAG_cv.csv`` of their repository.

::

    img_id,fold
    TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500_0_790,0      tile of a region of interest: _<y>_<x>
    train_1,3                                                    image of CRAG

``img_id`` is the name of an image without its extension; ``fold`` -1 is the test split, 0 to 4 are the folds. The
authors validate on fold 0 and train on the others. (Their code never trains on fold 0, whichever fold validates; here
every fold that does not validate trains.) The BCSS folds were dealt by tile: they leak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.model.zoo import cache_dir
from sampath_wsi.training.data.pictures import SUFFIXES, read_table
from sampath_wsi.training.data.prepared import TEST, TRAIN, VAL, Sample

# The state of the repository in which the files were published; a commit's content cannot change.
_FOLDER_URL = (
    "https://raw.githubusercontent.com/cvlab-stonybrook/SAMPath/afa980fa8c6778547cad92f0e3283d8f3b05cf90/dataset_cfg/"
)
_TEST_FOLD = -1
# Name of the published file, the images that it names, and how many of them are for testing.
PUBLISHED = {"bcss": ("BCSS_cv.csv", 3129, 978), "crag": ("CRAG_cv.csv", 213, 40)}


def load_folds(source: str | Path) -> dict[str, int]:
    """Return the fold of every image: from a file, an https address, or by the name of a published file.

    Parameters
    ----------
    source
        A path, an address, or a name in :data:`PUBLISHED`. Downloads stay in the cache; the images that a
        published file names are counted.

    Raises
    ------
    ConfigError
        If there is no such file or name.
    DataError
        If the download fails (it says where to get the file and where to put it), or the file is empty, lacks a column,
        names an image twice, has a fold that is no whole number, or is not the one that was published.
    """
    path, known, url = Path(source), None, ""
    if not path.is_file():
        known = PUBLISHED.get(str(source))
        url = _FOLDER_URL + known[0] if known else str(source)
        if not url.startswith("https://"):
            names = ", ".join(PUBLISHED)
            raise ConfigError(
                f"{source}: there is no such file of folds", f"Give a CSV, its address, or one of {names}."
            )
        path = _download(url)
    folds: dict[str, int] = {}
    for name, row in read_table(path, ("img_id", "fold"), name_of=_stem).items():
        try:
            folds[name] = int(row["fold"])
        except ValueError as error:
            raise DataError(
                f"{path}: the fold of {name} is {row['fold']!r}", "A fold is a whole number; -1 is the test split."
            ) from error
    found = len(folds), sum(fold == _TEST_FOLD for fold in folds.values())
    if known and found != known[1:]:
        raise DataError(
            f"{path} names {found[0]} images, {found[1]} of them for testing, instead of {known[1]} and {known[2]}",
            f"Delete it; it comes from {url}.",
        )
    return folds


def split_as_authors(samples: Sequence[Sample], folds: Mapping[str, int], val_fold: int = 0) -> tuple[Sample, ...]:
    """Split samples by the authors' folds: ``test`` is fold -1, ``val`` is ``val_fold``, ``train`` all others.

    Samples are found by their name or that of their image; those that the folds do not name are left out.

    Raises
    ------
    ConfigError
        If there is no fold ``val_fold``.
    DataError
        If the folds name images that are not among the samples.
    """
    if val_fold < 0 or val_fold not in folds.values():
        known = ", ".join(str(fold) for fold in sorted({*folds.values()} - {_TEST_FOLD}))
        raise ConfigError(f"there is no fold {val_fold}", f"The folds are: {known}.")
    split_of = {
        name: TEST if fold == _TEST_FOLD else VAL if fold == val_fold else TRAIN for name, fold in folds.items()
    }
    found = [(next((n for n in (s.sample, _stem(Path(s.image).name)) if n in split_of), None), s) for s in samples]
    if missing := sorted(folds.keys() - {name for name, _ in found}):
        raise DataError(
            f"the folds name {len(missing)} of {len(folds)} images that the data do not have, such as {missing[0]}",
            "Prepare the whole data set in the authors' tiles and names.",
        )
    return tuple(replace(s, split=split_of[name]) for name, s in found if name is not None)


def _stem(name: str) -> str:
    """Return the name without the extension of an image; other dots (``MPP-0.2500``) belong to the name."""
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


def _download(url: str) -> Path:
    import pooch
    import requests

    folder = cache_dir() / "folds"
    try:
        return Path(pooch.retrieve(url, known_hash=None, path=folder))
    except (requests.RequestException, OSError, ValueError) as error:
        raise DataError(
            f"the folds cannot be downloaded ({type(error).__name__})",
            f"Without internet access, get {url} elsewhere and give its path.",
        ) from error
