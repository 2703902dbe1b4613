"""Cards of the paper's models: the architectures of Table 1 for BCSS and CRAG, which are known by name.

Their weights cannot be shipped; a template becomes a model by training or by converting the authors' checkpoint.
"""

from __future__ import annotations

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ModelError
from sampath_wsi.model.card import Architecture, ModelCard, PathologyEncoderSpec, SamEncoderSpec

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

_SAM = SamEncoderSpec.preset("vit_b")
_VARIANTS: dict[str, tuple[str, Architecture]] = {
    "": ("SAM-Path", Architecture(sam=_SAM, pathology=PathologyEncoderSpec.hipt())),
    "-no-pathology": ("Fine-tuned SAM (SAM-Path without the pathology encoder)", Architecture(sam=_SAM)),
    "-no-sam": ("SAM-Path without SAM's encoder", Architecture(pathology=PathologyEncoderSpec.hipt())),
}


def _cards() -> dict[str, ModelCard]:
    cards = {}
    for suffix, (title, architecture) in _VARIANTS.items():
        cards[f"sampath-bcss{suffix}"] = ModelCard(
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
        cards[f"sampath-crag{suffix}"] = ModelCard(
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
    return cards


TEMPLATES: dict[str, ModelCard] = _cards()


def template_card(name: str) -> ModelCard:
    """The card of one of the paper's models.

    Raises
    ------
    ModelError
        If there is none of that name.
    """
    if name not in TEMPLATES:
        raise ModelError(f"there is no model template '{name}'", f"Choose one of {', '.join(TEMPLATES)}.")
    return TEMPLATES[name]
