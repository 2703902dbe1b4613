"""A straightforward script, the reference: a slide -> GeoJSON, with OpenSlide, a DataLoader, NumPy and OpenCV.

    python benchmarks/straightforward_script.py slide.tif out.geojson

The probabilities of overlapping tiles are summed in memory at stride 4 and divided by how many there were, the class is
the argmax, and contours with holes become polygons.
"""

from __future__ import annotations

import json
import sys
import time

import cv2
import geojson
import numpy as np
import openslide
import torch
from torch.utils.data import DataLoader, Dataset
from trivial import CLASSES, MPP, OVERLAP_PX, STRIDE, TILE_PX, trivial_model

THUMBNAIL_UM = 8.0
MIN_AREA_UM2 = 25.0


class Tiles(Dataset):
    def __init__(self, path: str, corners: list[tuple[int, int]], read_px: int) -> None:
        self.path, self.corners, self.read_px = path, corners, read_px
        self.slide = None

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.slide is None:  # a handle for each worker
            self.slide = openslide.OpenSlide(self.path)
        x, y = self.corners[index]
        tile = np.asarray(self.slide.read_region((x, y), 0, (self.read_px, self.read_px)).convert("RGB"))
        tile = cv2.resize(tile, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(tile).permute(2, 0, 1), index


def find_tissue(slide: openslide.OpenSlide, mpp: float) -> tuple[np.ndarray, float]:
    scale = THUMBNAIL_UM / mpp
    size = [round(side / scale) for side in slide.dimensions]
    thumbnail = np.asarray(slide.get_thumbnail(tuple(size)).convert("RGB"))
    saturation = cv2.GaussianBlur(cv2.cvtColor(thumbnail, cv2.COLOR_RGB2HSV)[..., 1], (5, 5), 0)
    _, mask = cv2.threshold(saturation, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return mask, slide.dimensions[0] / mask.shape[1]


def polygons(label: np.ndarray, scale: float, mpp: float) -> list[geojson.Feature]:
    features = []
    for value, kind in enumerate(CLASSES, 1):
        contours, tree = cv2.findContours((label == value).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for k, outline in enumerate(contours):
            if tree[0][k][3] >= 0 or cv2.contourArea(outline) * (scale * mpp) ** 2 < MIN_AREA_UM2:
                continue
            rings, child = [outline], tree[0][k][2]
            while child >= 0:
                rings.append(contours[child])
                child = tree[0][child][0]
            closed = [(ring[:, 0] * scale).tolist() for ring in rings if len(ring) > 2]
            if closed:
                polygon = geojson.Polygon([[*ring, ring[0]] for ring in closed])
                features.append(geojson.Feature(geometry=polygon, properties={"classification": kind}))
    return features


def main() -> None:
    begun = time.monotonic()
    path, out = sys.argv[1], sys.argv[2]
    slide = openslide.OpenSlide(path)
    mpp = float(slide.properties["openslide.mpp-x"])
    width, height = slide.dimensions
    read_px, step = round(TILE_PX * MPP / mpp), round((TILE_PX - OVERLAP_PX) * MPP / mpp)
    mask, mask_scale = find_tissue(slide, mpp)
    corners = []
    for y in range(0, height - round(OVERLAP_PX * MPP / mpp), step):
        for x in range(0, width - round(OVERLAP_PX * MPP / mpp), step):
            x0, y0, x1, y1 = (int(v / mask_scale) for v in (x, y, x + read_px, y + read_px))
            if mask[y0:y1, x0:x1].any():
                corners.append((x, y))
    scale = STRIDE * MPP / mpp
    map_px = TILE_PX // STRIDE
    rows, columns = (int(side / scale) + map_px for side in (height, width))
    total = np.zeros((len(CLASSES), rows, columns), np.float32)
    count = np.zeros((rows, columns), np.float32)
    model = trivial_model()
    with torch.inference_mode():
        for images, indices in DataLoader(Tiles(path, corners, read_px), batch_size=8, num_workers=2):
            probability = torch.softmax(model(images.float() / 255), 1).numpy()
            for values, index in zip(probability, indices.tolist(), strict=True):
                x, y = (round(v / scale) for v in corners[index])
                total[:, y : y + map_px, x : x + map_px] += values
                count[y : y + map_px, x : x + map_px] += 1
    probability = total / np.maximum(count, 1)
    label = probability.argmax(0).astype(np.uint8) + 1
    tissue = cv2.resize(mask, (int(width / scale), int(height / scale)), interpolation=cv2.INTER_NEAREST)
    label = np.where(tissue > 0, label[: tissue.shape[0], : tissue.shape[1]], 0)
    with open(out, "w") as file:
        geojson.dump(geojson.FeatureCollection(polygons(label, scale, mpp)), file)
    areas = np.bincount(label.ravel(), minlength=len(CLASSES) + 1)[1:] * (scale * mpp) ** 2
    with open(f"{out}.json", "w") as file:
        json.dump({"work_s": time.monotonic() - begun, "area_um2": areas.tolist()}, file)


if __name__ == "__main__":
    main()
