"""Pictures of synthetic glands with their instances: something to begin with where real glands are few."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sampath_wsi.errors import ConfigError
from sampath_wsi.progress import Progress
from sampath_wsi.synthetic.glands import GLAND_MPP, GlandPainter
from sampath_wsi.training.data.prepare.coding import load_coding
from sampath_wsi.training.data.prepared import DatasetInfo
from sampath_wsi.training.data.prepared_writer import PreparedWriter


def prepare_synthetic_glands(
    out: str | Path, *, images: int = 324, val_images: int = 12, seed: int = 100, progress: Progress | None = None
) -> Path:
    """Paint pictures of glands as large as those of GlaS; every picture is a group of its own.

    Parameters
    ----------
    out
        The folder to write.
    images, val_images
        Pictures in all, and how many of them, the last ones, are for validation.
    seed
        Everything random is drawn from it.

    Raises
    ------
    ConfigError
        If no picture is left for training or none is for validation.
    """
    if not 0 < val_images < images:
        raise ConfigError(f"{val_images} of {images} pictures cannot be for validation", "Keep some for training.")
    classes = load_coding("glas").tissue_classes
    info = DatasetInfo(name="synthetic glands", classes=classes, mpp=GLAND_MPP, description=f"master seed {seed}")
    painter = GlandPainter(seed=seed)
    with PreparedWriter(out, info) as writer:
        for number in range(images):
            picture = painter.paint(number)
            name, split = f"synthetic_{number}", "val" if number >= images - val_images else "train"
            labels = (picture.instances > 0).astype(np.uint8) + 1
            writer.add(name, picture.rgb, labels, name, split, instances=picture.instances)
            if progress is not None:
                progress(number + 1, images, "pictures")
    return Path(out)
