"""By what files are known again: what is the same content, and what is another."""

from __future__ import annotations

import os
from pathlib import Path

from sampath_wsi.content import ContentKeys, companions, sample

LARGE = 8 << 20


def change_a_byte(path: Path, place: int) -> None:
    """Change the file where samples do not look, and leave its size."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"x")


def test_a_mask_is_read_as_a_whole(tmp_path: Path) -> None:
    mask = tmp_path / "m.tif"
    mask.write_bytes(bytes(LARGE))
    before, sampled = ContentKeys(tmp_path / "k.json").of(str(mask), whole=True), sample(mask)
    change_a_byte(mask, 150_000)
    assert sample(mask) == sampled
    assert ContentKeys(tmp_path / "k.json").of(str(mask), whole=True) != before


def test_what_was_known_is_remembered(tmp_path: Path) -> None:
    mask, memory = tmp_path / "m.png", tmp_path / "k.json"
    mask.write_bytes(b"mask")
    keys = ContentKeys(memory)
    known = keys.of(str(mask), whole=True)
    keys.save()
    os.utime(mask, (1, 1))
    assert ContentKeys(memory).of(str(mask), whole=True) == known
    mask.unlink()
    assert ContentKeys(memory).of(str(mask), whole=True) == known
    assert ContentKeys(memory).of(str(tmp_path / "never")) == ""


def test_a_slide_of_hamamatsu_is_what_its_key_file_names(tmp_path: Path) -> None:
    key = tmp_path / "a [1].vms"
    key.write_text("[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=a [1].jpg\nImageFile(1,0)=a [1](1,0).jpg\n")
    for name in ("a [1].jpg", "a [1](1,0).jpg", "a [1].geojson", "a [1]2.vms"):
        (tmp_path / name).write_text(name)
    before = sample(key)
    assert [path.name for path in companions(key)] == ["a [1].vms", "a [1](1,0).jpg", "a [1].jpg"]
    (tmp_path / "a [1].geojson").write_text("drawn beside it")
    assert sample(key) == before
    (tmp_path / "a [1](1,0).jpg").write_text("other pixels")
    assert sample(key) != before
