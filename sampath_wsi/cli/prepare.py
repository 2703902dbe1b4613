"""The commands `prepare ...`: training data in the one layout, from data sets, annotated slides, or nothing; splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sampath_wsi.cli.help import App
from sampath_wsi.cli.options import Flags, flags_of
from sampath_wsi.cli.run import log, shown_progress, stage_run
from sampath_wsi.options import SplitOptions, SyntheticGlandOptions, SyntheticOptions

if TYPE_CHECKING:
    from sampath_wsi.training.data.prepared_writer import Summary

group = App(
    help="""Prepare training data, and split them.

    Example: sampath-wsi prepare annotations annotated.tsv data/mine --mpp 0.5
    """
)

Source = Annotated[Path, typer.Argument(help="The folder of the download.")]
Out = Annotated[Path, typer.Argument(help="The folder to write.")]
Data = Annotated[Path, typer.Argument(help="The prepared data.")]
LabelMapFile = Annotated[
    Path | None, typer.Option("--label-map", help="Label map (YAML) in place of the data set's own.")
]
TilePx = Annotated[
    int | None,
    typer.Option("--tile-px", min=0, help="Cut tiles of this side; 0 keeps images whole. [the label map's]"),
]
Mpp = Annotated[float | None, typer.Option("--mpp", min=0.02, help="True mpp of the images, um/px. [the data set's]")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(group, name="prepare")


@group.command()
def bcss(source: Source, out: Out, label_map: LabelMapFile = None, tile_px: TilePx = None, mpp: Mpp = None) -> None:
    """Prepare BCSS (images/ and masks/, as its downloader leaves them), in tiles of 1024 px.

    Example: sampath-wsi prepare bcss downloads/BCSS data/bcss
    """
    from sampath_wsi.training.data.prepare.masks import prepare_masks

    _prepare(source, partial(prepare_masks, "bcss", source, out, tile_px=tile_px, mpp=mpp), label_map)


@group.command()
def crag(source: Source, out: Out, label_map: LabelMapFile = None, tile_px: TilePx = None, mpp: Mpp = None) -> None:
    """Prepare CRAG (train/Images, train/Annotation, valid/Images, valid/Annotation).

    Example: sampath-wsi prepare crag downloads/CRAG data/crag
    """
    from sampath_wsi.training.data.prepare.masks import prepare_masks

    _prepare(source, partial(prepare_masks, "crag", source, out, tile_px=tile_px, mpp=mpp), label_map)


@group.command()
def glas(source: Source, out: Out, label_map: LabelMapFile = None, tile_px: TilePx = None, mpp: Mpp = None) -> None:
    """Prepare GlaS (the archive's folder, or one with samples.csv, images/ and masks/).

    Example: sampath-wsi prepare glas downloads/GlaS data/glas
    """
    from sampath_wsi.training.data.prepare.masks import prepare_masks

    _prepare(source, partial(prepare_masks, "glas", source, out, tile_px=tile_px, mpp=mpp), label_map)


@group.command("annotations")
def annotated(
    sheet: Annotated[Path, typer.Argument(help="The slides and their GeoJSON (.tsv or .csv; see docs/data.md).")],
    out: Out,
    label_map: Annotated[
        Path | None, typer.Option("--label-map", help="Label map (YAML). [every class name is a class]")
    ] = None,
    tile_px: Annotated[int | None, typer.Option("--tile-px", min=64, help="Side of a tile in pixels. [1024]")] = None,
    mpp: Annotated[float | None, typer.Option("--mpp", min=0.02, help="mpp of the tiles, um/px. [0.5]")] = None,
) -> None:
    """Prepare slides with annotations from QuPath.

    Example: sampath-wsi prepare annotations annotated.tsv data/mine --mpp 0.5
    """
    from sampath_wsi.training.data.prepare.annotations import prepare_annotations

    _prepare(sheet, partial(prepare_annotations, sheet, out, tile_px=tile_px, mpp=mpp), label_map)


@group.command()
@flags_of(SyntheticOptions)
def synthetic(out: Out, options: Flags) -> None:
    """Make training tiles of synthetic slides.

    Example: sampath-wsi prepare synthetic data/synthetic
    """
    from sampath_wsi.training.data.prepare.synthetic import prepare_synthetic

    _prepare(out, partial(prepare_synthetic, out, SyntheticOptions.of(options, "prepare synthetic")))


@group.command()
@flags_of(SyntheticGlandOptions)
def synthetic_glands(out: Out, options: Flags) -> None:
    """Paint pictures of glands, to begin a training with.

    Example: sampath-wsi prepare synthetic-glands data/synthetic-glands
    """
    from sampath_wsi.training.data.prepare.synthetic import prepare_synthetic_glands

    _prepare(out, partial(prepare_synthetic_glands, out, SyntheticGlandOptions.of(options, "prepare synthetic-glands")))


def _prepare(subject: Path, prepare: Callable[..., Summary], label_map: Path | None = None) -> None:
    """Run a preparation with its progress; log its warnings and its summary."""
    with stage_run("prepare", str(subject), None) as run:
        if label_map is not None:
            from sampath_wsi.training.data.prepare.label_map import load_label_map

            prepare = partial(prepare, label_map=load_label_map(label_map))
        summary = prepare(progress=run.progress)
        run.facts["warnings"] = summary.warnings
        log.info("prepare: %s", summary)


@group.command()
@flags_of(SplitOptions)
def split(
    data: Data,
    out: Annotated[Path, typer.Argument(help="The splits file to write (.csv).")],
    options: Flags,
) -> None:
    """Say anew which samples train and which validate: whole patients or slides at a time, with a seed.

    Example: sampath-wsi prepare split data/glas data/glas-disjoint.csv --folds 5 --disjoint-from testA
    """
    with stage_run("prepare split", str(data), None) as run:
        from sampath_wsi.training.data.leakage import leakage_of
        from sampath_wsi.training.data.prepared import read_prepared
        from sampath_wsi.training.data.splits import make_splits, write_splits

        prepared = read_prepared(data)
        samples = make_splits(prepared, SplitOptions.of(options, "prepare split"))
        write_splits(out, samples)
        for name in sorted({s.split for s in samples}):
            groups = [s.group for s in samples if s.split == name]
            log.info("prepare split: %s: %d samples of %d groups", name, len(groups), len(set(groups)))
        if left_out := len(prepared.samples) - len(samples):
            log.info("prepare split: %d samples are left out", left_out)
        report = leakage_of(replace(prepared, samples=samples))
        run.facts["warnings"] = [report.summary] if report.leaks else []


@group.command()
def check(
    data: Data,
    splits: Annotated[Path | None, typer.Option("--splits", help="A splits file, instead of the data's own.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The report to write (JSON).")] = None,
    pixels: Annotated[bool, typer.Option("--pixels", help="Also look for the same image under two names.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if anything leaks.")] = False,
) -> None:
    """Report leakage: patients, slides, regions, pixels or images that occur in two splits.

    Example: sampath-wsi prepare check data/glas --out glas-leakage.json
    """
    from sampath_wsi.files import write_json
    from sampath_wsi.training.data.leakage import leakage_of
    from sampath_wsi.training.data.prepared import read_prepared

    with shown_progress("prepare check") as progress:
        report = leakage_of(read_prepared(data, splits), hash_pixels=pixels, progress=progress)
    if out is not None:
        write_json(out, report.to_json())
    print(f"{data}: {', '.join(f'{n} samples in {name}' for name, n in report.samples.items())}")
    for line in report.leaks or (report.summary,):
        print(f"  {line}")
    if strict and report.leaks:
        raise typer.Exit(2)
