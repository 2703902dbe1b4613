"""What is damaged, and which part of the program meets it."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import pickle
import random
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.helpers import make_grid, write_slide
from tests.hostile.mutate import NASTY, damaged, damaged_json, damaged_slide, nasty_value

ZOO = Path(__file__).resolve().parents[2] / "sampath_wsi" / "model" / "zoo" / "demo"


class Kind(ABC):
    """A kind of input: how a case is made, and what works on it in a folder of its own."""

    name = ""

    def __init__(self, data: Path) -> None:
        self.data = data

    def warm_up(self, folder: Path) -> None:  # noqa: B027 - not every kind has to
        """Do everything once on a sound input, before children are forked."""

    @abstractmethod
    def make(self, rng: random.Random, number: int) -> Any:
        """A case."""

    @abstractmethod
    def target(self, case: Any, folder: Path) -> None:
        """Work on a case; SampathError is fine."""

    def tidy(self, folder: Path) -> None:
        """Remove what a case may leave: the inputs, and outputs where they belong, whole or unfinished."""
        for path in folder.iterdir():
            if path.name.lstrip(".").startswith(("input", "output")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


class Slides(Kind):
    """Whole slides, opened and tiled."""

    name = "slides"

    def warm_up(self, folder: Path) -> None:
        self.sound = [(p.suffix, p.read_bytes()) for p in (*self._synthetic(folder), *self._real())]
        for case in self.sound:
            self.target(case, folder)
            self.tidy(folder)

    def _real(self) -> list[Path]:
        names = ("CMU-1-Small-Region.svs", "test3-DAPI-2-(387).ndpi", "multiframe_camelyon_challenge_image.dcm")
        return [path for name in names if (path := self.data / "slides" / name).exists()]

    def _synthetic(self, folder: Path) -> list[Path]:
        rgb = np.random.default_rng(0).integers(100, 250, (300, 400, 3), dtype=np.uint8)
        paths = [write_slide(folder / "input.tif", rgb, levels=2)]
        for codec in ("jpeg", "lzw", "deflate"):
            paths.append(folder / f"input-{codec}.tif")
            size = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
            tifffile.imwrite(
                paths[-1], rgb, tile=(128, 128), compression=codec, photometric="rgb", metadata=None, **size
            )
        return paths

    def make(self, rng: random.Random, number: int) -> tuple[str, bytes]:
        suffix, data = self.sound[number % len(self.sound)]
        return suffix, damaged_slide(data, rng)

    def target(self, case: tuple[str, bytes], folder: Path) -> None:
        from sampath_wsi.model.card import ModelSpec
        from sampath_wsi.slides import inspect_slide
        from sampath_wsi.stages.tile import TileOptions, TileRequest, tile_slide

        slide = folder / f"input{case[0]}"
        slide.write_bytes(case[1])
        mpp_model = {".tif": 0.5, ".dcm": 60.0}.get(case[0], 4.0)
        spec = ModelSpec("any", "0", (), mpp_model, tile_px=128, output_stride=4, overlap_px=16)
        options = TileOptions(tissue_mpp=max(8.0, mpp_model / 2))
        # The DICOM slide is coarser than metadata may say.
        info = inspect_slide(slide, mpp=(29.0, 29.0) if case[0] == ".dcm" else None)
        tile_slide(TileRequest(info, "s", spec, options), folder / "output.zarr")


class Annotations(Kind):
    """GeoJSON of QuPath and others, read and rasterised as the region of a slide."""

    name = "annotations"

    def warm_up(self, folder: Path) -> None:
        ring = [[10, 10], [500, 10], [500, 400], [10, 10]]
        properties = {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}
        geometry = {"type": "Polygon", "coordinates": [ring]}
        feature = {"type": "Feature", "id": "x", "geometry": geometry, "properties": properties}
        self.sound = [json.dumps({"type": "FeatureCollection", "features": [feature]}).encode()]
        self.sound += [path.read_bytes() for path in sorted((self.data / "geojson").glob("*json"))]
        self.target(self.sound[0], folder)

    def make(self, rng: random.Random, number: int) -> bytes:
        data = self.sound[number % len(self.sound)]
        new = damaged_json(data, rng) if rng.random() < 0.6 else damaged(data, rng)
        return damaged(gzip.compress(new), rng) if rng.random() < 0.1 else new

    def target(self, case: bytes, folder: Path) -> None:
        from sampath_wsi.qupath import read_annotations
        from sampath_wsi.slides import SlideInfo
        from sampath_wsi.tissue.brought import rasterize_rois

        path = folder / "input.geojson"
        path.write_bytes(case)
        side = 100_000
        slide = SlideInfo(
            path, "x", (side, side), ((side, side),), (1,), (1, 1), "metadata", (0, 0, side, side), (255, 255, 255), ""
        )
        if any(annotation.has_area for annotation in read_annotations(path)):
            rasterize_rois(path, slide, (0, 0), (16.0, 16.0), (44, 63))


class Sheets(Kind):
    """Sample sheets, and the command line of the workflow for every row that is accepted."""

    name = "sheets"

    def make(self, rng: random.Random, number: int) -> tuple[str, bytes]:
        suffix, delimiter = rng.choice([(".tsv", "\t"), (".csv", ",")])
        rows = [["slide", "path", "mpp", "tissue_mask", "roi", "truth", "patient"][: rng.randrange(2, 8)]]
        if rng.random() < 0.1:
            rows = [[rng.choice([*NASTY, *rows[0]]) for _ in rows[0]]]
        for _ in range(rng.randrange(1, 4)):
            rows.append([rng.choice(NASTY) if rng.random() < 0.4 else f"a{rng.random()}" for _ in rows[0]])
        text = "\n".join(delimiter.join(row) for row in rows).encode("utf-8", "surrogatepass")
        return suffix, damaged(text, rng) if rng.random() < 0.3 else text

    def target(self, case: tuple[str, bytes], folder: Path) -> None:
        from sampath_wsi.cohort.table import read_cohort, write_cohort
        from sampath_wsi.runs.sheet import read_slides

        path = folder / f"input{case[0]}"
        path.write_bytes(case[1])
        rows = read_slides(str(path))
        for row in rows:
            results = folder / "output" / "slides" / row.slide
            assert results.resolve().parent == folder / "output" / "slides"
            for name in (row.path, row.tissue_mask, row.roi, row.truth):
                assert not name.startswith("-")
                assert "\x00" not in name
                os.path.exists(name)  # noqa: PTH110 - must not raise
        outcomes = read_cohort(rows, folder / "output")
        write_cohort(outcomes, folder / "output.tsv")


class Configs(Kind):
    """Configurations: one section is something else, or one key of it."""

    name = "configs"

    def warm_up(self, folder: Path) -> None:
        from sampath_wsi.options import Config

        self.sections = {
            name: list(getattr(field.annotation, "model_fields", {})) for name, field in Config.model_fields.items()
        }
        self.target({"slides": "x.tsv"}, folder)

    def make(self, rng: random.Random, number: int) -> dict[Any, Any]:
        name = rng.choice([*self.sections, rng.choice([*NASTY, 1, None, True])])
        keys = self.sections.get(name, [])
        value = {rng.choice(keys): nasty_value(rng)} if keys and rng.random() < 0.8 else nasty_value(rng)
        return {"slides": "x.tsv", name: value}

    def target(self, case: dict[Any, Any], folder: Path) -> None:
        from sampath_wsi.options import load_config
        from sampath_wsi.training.experiments.plan import plan_experiments

        config = load_config(case)
        sections = config.model_dump(mode="json").values()
        numbers = [v for section in sections if isinstance(section, dict) for v in section.values()]
        assert all(math.isfinite(v) for v in numbers if isinstance(v, float))
        for experiment in plan_experiments(config).values():
            assert experiment.table_scores


class Cards(Kind):
    """Model cards, and the models that they describe, built without values."""

    name = "cards"

    def warm_up(self, folder: Path) -> None:
        self.sound = (ZOO / "card.json").read_bytes()
        self.target(self.sound, folder)

    def make(self, rng: random.Random, number: int) -> bytes:
        return damaged_json(self.sound, rng) if rng.random() < 0.8 else damaged(self.sound, rng)

    def target(self, case: bytes, folder: Path) -> None:
        import torch

        from sampath_wsi.model.card import ModelCard
        from sampath_wsi.model.sampath import SamPath

        (folder / "input.json").write_bytes(case)
        card = ModelCard.read(folder / "input.json")
        with torch.device("meta"):
            SamPath(card.architecture, len(card.classes), mean=card.mean, std=card.std)
        card.write(folder / "output.json")


class Weights(Kind):
    """safetensors files, their headers above all, loaded as a model without a checksum."""

    name = "weights"

    def warm_up(self, folder: Path) -> None:
        data = (ZOO / "weights.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        self.header, self.tensors = data[8 : 8 + size], data[8 + size :]
        self.card = json.dumps(json.loads((ZOO / "card.json").read_text()) | {"weights_sha256": None})
        self.target(data, folder)

    def make(self, rng: random.Random, number: int) -> bytes:
        if number % 10 == 0:
            return len(self.header).to_bytes(8, "little") + self.header + damaged_slide(self.tensors, rng)
        header = json.loads(self.header)
        name = rng.choice([name for name in header if name != "__metadata__"])
        if rng.random() < 0.6:
            field = rng.choice(["dtype", "shape", "data_offsets"])
            types = ["F32", "F64", "I64", "BOOL", "F8_E4M3", "C64", "F4", "U64", "?"]
            header[name][field] = rng.choice(types) if field == "dtype" else nasty_value(rng)
            text = json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogatepass")
        else:
            text = damaged(self.header, rng)
        size = len(text) if rng.random() < 0.9 else rng.choice([0, 2**40, 2**63, len(text) + 1])
        return size.to_bytes(8, "little") + text + self.tensors

    def target(self, case: bytes, folder: Path) -> None:
        from sampath_wsi.model.bundle import load_bundle

        model = folder / "input"
        model.mkdir(exist_ok=True)
        (model / "card.json").write_text(self.card)
        (model / "weights.safetensors").write_bytes(case)
        load_bundle(model)


class _RunsACommand:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


class Checkpoints(Kind):
    """Pickled checkpoints, damaged or made to run a command (which would leave a file)."""

    name = "checkpoints"

    def warm_up(self, folder: Path) -> None:
        import torch

        record = {"state_dict": {"a": torch.zeros(10), "b": torch.ones(3, 4).half()}, "epoch": 3}
        self.sound = []
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(record, file, _use_new_zipfile_serialization=zipped)
            self.sound.append(file.getvalue())
            self.target((file.getvalue(), False), folder)

    def make(self, rng: random.Random, number: int) -> tuple[bytes, bool]:
        data = self.sound[number % 2]
        evil = pickle.dumps({"state_dict": {"a": _RunsACommand()}}, protocol=2)
        if number < 4:
            return (evil if number % 2 else self._repacked(data, lambda _: evil)), number < 2
        if number % 2 == 0 and rng.random() < 0.8:
            return self._repacked(data, lambda text: damaged(text, rng)), rng.random() < 0.5
        return damaged(data, rng), rng.random() < 0.5

    def _repacked(self, data: bytes, change: Callable[[bytes], bytes]) -> bytes:
        """A checkpoint in torch's zip format whose pickle is another."""
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, change(content) if name.endswith("data.pkl") else content)
        return file.getvalue()

    def target(self, case: tuple[bytes, bool], folder: Path) -> None:
        from sampath_wsi.model.checkpoints import read_checkpoint, tensors_of

        path = folder / "input.ckpt"
        path.write_bytes(case[0])
        tensors_of(read_checkpoint(path, trust=case[1]), path, "state_dict")


class Pictures(Kind):
    """Tissue masks in the formats that Pillow reads, and true class maps."""

    name = "pictures"

    def warm_up(self, folder: Path) -> None:
        from PIL import Image

        mask = np.zeros((70, 100), np.uint8)
        mask[20:40, 30:60] = 2
        self.sound = []
        for how in ("PNG", "TIFF", "JPEG", "GIF", "BMP", "WEBP", "PPM"):
            file = io.BytesIO()
            Image.fromarray(mask).save(file, how)
            self.sound.append(file.getvalue())
        for codec in ("lzw", "deflate", "zstd"):
            file = io.BytesIO()
            tifffile.imwrite(file, mask, tile=(64, 64), compression=codec)
            self.sound.append(file.getvalue())

    def make(self, rng: random.Random, number: int) -> bytes:
        data = self.sound[number % len(self.sound)]
        return damaged_slide(data, rng) if rng.random() < 0.5 else damaged(data, rng)

    def target(self, case: bytes, folder: Path) -> None:
        from sampath_wsi.errors import SampathError
        from sampath_wsi.geometry import Box
        from sampath_wsi.stages.evaluate import _read_truth
        from sampath_wsi.tissue.brought import read_mask

        path = folder / "input.png"
        path.write_bytes(case)
        size = (1000, 700)
        with suppress(SampathError):  # the second reader is to meet the picture too
            read_mask(path, size, Box(0, 0, *size), (44, 63))
        _read_truth(path, make_grid(size), 3, None)


KINDS: dict[str, type[Kind]] = {
    kind.name: kind for kind in (Slides, Annotations, Sheets, Configs, Cards, Weights, Checkpoints, Pictures)
}
