from __future__ import annotations

from pathlib import Path

import pytest

from sampath_wsi.errors import ConfigError
from sampath_wsi.options import load_config
from sampath_wsi.runs.sheet import parse_mpp, read_slides, safe_id


def sheet(tmp_path: Path, text: str) -> str:
    path = tmp_path / "slides.tsv"
    path.write_text(text)
    return str(path)


def test_columns_known_and_free(tmp_path: Path) -> None:
    text = "slide\tpath\tmpp\tpatient\n# a comment\na\tx y/a.svs\t\tP1\n\nb\tb.svs\t0.25x0.26\tP2\n"
    first, second = read_slides(sheet(tmp_path, text))
    assert (first.slide, first.path, first.mpp, first.extra) == ("a", "x y/a.svs", "", {"patient": "P1"})
    assert second.mpp == "0.25x0.26"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,path\na,b\n", r"header lacks the column 'slide'"),
        ("slide\tpath\n", r"names no slide"),
        ("slide\tpath\na\ta.svs\n../x\tb.svs\n", r"row 2, slide: '../x'.*Expected: a name for the slide of letters"),
        ("slide\tpath\na b\ta.svs\n", r"row 1, slide: 'a b'"),
        ("slide\tpath\na\t\n", r"row 1: 'path' is missing or empty"),
        ("slide\tpath\tmpp\na\ta.svs\tquarter\n", r"row 1, mpp: 'quarter'.*micrometres a level-0 pixel"),
        ("slide\tpath\tmpp\na\ta.svs\t0\n", r"row 1, column mpp: mpp '0' is not a resolution"),
        ("slide\tpath\na\ta.svs\tx\n", r"row 1: it has not as many columns"),
        ("slide\tpath\na\ta.svs\nA\tb.svs\n", r"rows 1 and 2: the slide id 'A' occurs twice"),
        ('slide\tpath\na\t"a.svs\n', r"Mend the quotes"),
    ],
)
def test_mistakes_name_row_column_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        read_slides(sheet(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "meant"),
    [("MPP", "mpp"), ("mmp", "mpp"), ("Tissue mask", "tissue_mask"), ("rio", "roi"), ("truths", "truth")],
)
def test_a_column_that_is_ours_but_for_a_slip_is_refused(tmp_path: Path, column: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"no column '{column}' .is '{meant}' meant"):
        read_slides(sheet(tmp_path, f"slide\tpath\t{column}\na\ta.svs\t0.5\n"))
    # Beside the true one it is a column like others, and so is whatever is not that near.
    text = f"slide\tpath\t{meant}\t{column}\tregion_id\tmappe\na\ta.svs\t0.5\t1\t2\t3\n"
    assert set(read_slides(sheet(tmp_path, text))[0].extra) == {column, "region_id", "mappe"}


def test_a_missing_sheet(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such sample sheet"):
        read_slides(str(tmp_path / "none.tsv"))


def test_patterns(tmp_path: Path) -> None:
    for name in ("a.svs", "b (2) [x].svs", "c.tif"):
        (tmp_path / name).touch()
    rows = read_slides(f"{tmp_path}/*.svs, {tmp_path}/*.tif")
    assert [row.slide for row in rows] == ["a", "b_2_x", "c"]
    with pytest.raises(ConfigError, match="nothing matches"):
        read_slides(f"{tmp_path}/*.ndpi")


def test_file_names_that_give_one_id(tmp_path: Path) -> None:
    for name in ("a 1.svs", "a_1.svs"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match="occurs twice"):
        read_slides(f"{tmp_path}/*.svs")


def test_safe_ids() -> None:
    assert safe_id("../../etc/passwd") == "etc_passwd"
    assert safe_id("été") == "t"
    assert safe_id("??") == "slide"


def test_parse_mpp() -> None:
    assert parse_mpp("0.25") == (0.25, 0.25)
    assert parse_mpp("0.25 x .5") == (0.25, 0.5)
    for bad in ("", "-1", "0.25x", "1e-3", "nan"):
        with pytest.raises(ConfigError):
            parse_mpp(bad)


def test_config_defaults_and_mistakes() -> None:
    filled = load_config({"slides": "x.tsv", "tile": {"overlap": 64}})
    assert filled.tile.overlap == 64
    assert filled.tile.tissue_mpp == 8
    assert filled.infer.device == "auto"
    as_text = load_config({"slides": "x.tsv", "vectorize": {"tolerance": "0"}, "tile": {"tissue": "false"}})
    assert (as_text.vectorize.tolerance, as_text.tile.tissue) == (0, False)
    with pytest.raises(ConfigError, match=r"config, tile: 'x' is no group of keys"):
        load_config({"slides": "x.tsv", "tile": "x"})
    with pytest.raises(ConfigError, match=r"config: there is no key 'sldies'; is 'slides' meant.*known: slides"):
        load_config({"slides": "x.tsv", "sldies": 1})
    with pytest.raises(ConfigError, match=r"config, tile\.overlap: -3 .*Expected: overlap of neighbouring tiles"):
        load_config({"slides": "x.tsv", "tile": {"overlap": -3}})
    with pytest.raises(ConfigError, match="'slides' is missing or empty"):
        load_config({})
