"""The commands of the four stages: tile, infer, stitch, vectorize."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sampath_wsi.cli.run import log, stage_run
from sampath_wsi.geometry import MppSource

if TYPE_CHECKING:
    from sampath_wsi.infer import ModelFrame, PredictorLike
    from sampath_wsi.model.card import ModelCard

# Imports of the stages stand inside the commands: `sampath-wsi --help` must not load torch, and no stage loads
# what another needs.

Record = Annotated[Path | None, typer.Option("--record", help="Keep how the stage went in this JSON file.")]
Model = Annotated[str, typer.Option("--model", help="Name of a model in the zoo, or path of a bundle.")]
SlideId = Annotated[
    str | None, typer.Option("--slide-id", help="Identifier of the slide; default: from its file name.")
]
Mpp = Annotated[
    str | None, typer.Option("--mpp", help="Micrometres a level-0 pixel, e.g. 0.25 or 0.25x0.26; default: metadata.")
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (tile, infer, stitch, vectorize):
        app.command()(command)


def tile(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    out: Annotated[Path, typer.Option("--out", help="The tile store to write, e.g. results/slides/a/tiles.zarr.")],
    model: Model = "demo",
    slide_id: SlideId = None,
    mpp: Mpp = None,
    mpp_source: Annotated[MppSource, typer.Option(help="Where --mpp comes from, for the record.")] = "command line",
    overlap: Annotated[int | None, typer.Option(help="Overlap of tiles in pixels; default: the model's.")] = None,
    min_tissue: Annotated[float, typer.Option(min=0, max=1, help="Keep tiles with more than this share.")] = 0.0,
    tissue: Annotated[bool, typer.Option(help="Find the tissue; otherwise everything is tiled.")] = True,
    tissue_mpp: Annotated[float, typer.Option(min=0.5, help="Resolution of the tissue mask, um/px.")] = 8.0,
    min_tissue_area: Annotated[float, typer.Option(min=0, help="Drop smaller islands of tissue, um^2.")] = 5_000.0,
    min_tissue_hole: Annotated[float, typer.Option(min=0, help="Fill smaller holes of tissue, um^2.")] = 5_000.0,
    tissue_mask: Annotated[Path | None, typer.Option(help="Image of the whole slide: not 0 is tissue.")] = None,
    region: Annotated[Path | None, typer.Option(help="QuPath annotations that limit what is segmented.")] = None,
    threads: Threads = 2,
    record: Record = None,
) -> None:
    """Stage 1: cut the tissue of a slide into tiles at the model's resolution.

    Example: sampath-wsi tile a.svs --out a/tiles.zarr --model demo
    """
    with stage_run("tile", str(slide), record) as run:
        from sampath_wsi.model.card import CARD_NAME, ModelCard
        from sampath_wsi.model.zoo import resolve_model
        from sampath_wsi.sheet import parse_mpp, safe_id
        from sampath_wsi.slide import inspect_slide
        from sampath_wsi.tile import TileOptions, tile_slide
        from sampath_wsi.tissue import TissueOptions
        from sampath_wsi.validation import check_finite

        check_finite(
            min_tissue=min_tissue,
            tissue_mpp=tissue_mpp,
            min_tissue_area=min_tissue_area,
            min_tissue_hole=min_tissue_hole,
        )
        card = ModelCard.read(resolve_model(model) / CARD_NAME)
        info = inspect_slide(slide, mpp=parse_mpp(mpp) if mpp else None, mpp_source=mpp_source)
        options = TileOptions(
            mpp_model=card.mpp,
            tile_model_px=card.tile_px,
            overlap_model_px=card.overlap_px if overlap is None else overlap,
            output_stride=card.output_stride,
            min_tissue=min_tissue,
            tissue=TissueOptions(tissue, tissue_mpp, min_tissue_area, min_tissue_hole),
        )
        result = tile_slide(
            info,
            out,
            options,
            slide_id=slide_id or safe_id(slide.stem),
            mask_path=tissue_mask,
            region_path=region,
            threads=threads,
            progress=run.progress,
        )
        run.facts.update(
            tiles=result.tiles,
            grid=[result.grid.rows, result.grid.columns],
            mpp=list(info.mpp),
            mpp_source=info.mpp_source,
            warnings=list(result.warnings),
        )
        log.info("tile: %d of %d x %d tiles hold tissue", result.tiles, result.grid.rows, result.grid.columns)


def infer(
    tiles: Annotated[Path, typer.Argument(help="The tile store.")],
    out: Annotated[Path, typer.Option("--out", help="The probability store to write.")],
    model: Model = "demo",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the encoders: auto, fp32, bf16 or fp16.")] = "auto",
    batch: Annotated[int | None, typer.Option(min=1, help="Tiles a batch; default: by device.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of the model.")] = None,
    record: Record = None,
) -> None:
    """Stage 2: run SAM-Path on every tile.

    Example: sampath-wsi infer a/tiles.zarr --out a/probabilities.zarr --model demo
    """
    with stage_run("infer", str(tiles), record) as run, ExitStack() as held:
        from sampath_wsi.device import choose_precision, leased_device
        from sampath_wsi.infer import infer as infer_store
        from sampath_wsi.model.card import CARD_NAME, ModelCard
        from sampath_wsi.model.zoo import resolve_model
        from sampath_wsi.predictor import default_batch

        path = resolve_model(model)
        card = ModelCard.read(path / CARD_NAME)
        chosen = held.enter_context(leased_device(device))
        how = choose_precision(precision, chosen)

        def load() -> PredictorLike:
            import torch

            from sampath_wsi.model.bundle import load_bundle
            from sampath_wsi.predictor import Predictor

            if threads is not None:
                torch.set_num_threads(threads)
            return Predictor(load_bundle(path), chosen, how)

        log.info("infer: model '%s' on %s, encoders in %s", card.name, _device_name(chosen), how)
        result = infer_store(
            tiles,
            out,
            _frame(card, path),
            load,
            precision=how,
            batch=batch or default_batch(chosen, card),
            progress=run.progress,
        )
        run.facts.update(
            tiles=result.tiles,
            computed=result.computed,
            device=_device_name(chosen),
            precision=how,
            device_busy=None if result.busy is None else round(result.busy, 4),
        )
        if result.busy is not None:
            rate = result.computed / result.seconds
            log.info("infer: %.3g tiles/s, device busy %.0f %% of the time", rate, 100 * result.busy)


def stitch(
    probabilities: Annotated[Path, typer.Argument(help="The probability store.")],
    out: Annotated[Path, typer.Option("--out", help="The OME-Zarr to write, e.g. a/segmentation.ome.zarr.")],
    dtype: Annotated[Literal["uint8", "float32"], typer.Option(help="Of the stored probabilities.")] = "uint8",
    mask_to_tissue: Annotated[bool, typer.Option(help="No class outside the tissue.")] = True,
    threads: Threads = 2,
    record: Record = None,
) -> None:
    """Stage 3: blend the tiles' probabilities into one map, an OME-Zarr pyramid.

    Example: sampath-wsi stitch a/probabilities.zarr --out a/segmentation.ome.zarr
    """
    with stage_run("stitch", str(probabilities), record) as run:
        from sampath_wsi.stitch import StitchOptions
        from sampath_wsi.stitch import stitch as stitch_store

        options = StitchOptions(dtype, mask_to_tissue)
        result = stitch_store(probabilities, out, options, threads=threads, progress=run.progress)
        run.facts.update(map_size_map_px=list(result.map_size_map_px), levels=result.levels)


def vectorize(
    segmentation: Annotated[Path, typer.Argument(help="The segmentation store (OME-Zarr).")],
    out: Annotated[Path, typer.Option("--out", help="The GeoJSON to write, e.g. a/segmentation.geojson.gz.")],
    tolerance: Annotated[float | None, typer.Option(min=0, help="Simplification, um; default: 3/4 map pixel.")] = None,
    min_area: Annotated[float, typer.Option(min=0, help="Merge smaller islands into their surroundings, um^2.")] = 25.0,
    min_hole: Annotated[float, typer.Option(min=0, help="Fill smaller holes, um^2.")] = 25.0,
    objects: Annotated[
        Literal["regions", "classes"], typer.Option(help="One object a connected region, or one a class.")
    ] = "regions",
    object_type: Annotated[
        Literal["annotation", "detection"], typer.Option(help="QuPath's kind of object.")
    ] = "annotation",
    frame: Annotated[
        Literal["qupath", "slide"], typer.Option(help="QuPath's coordinates (cropped to bounds) or the slide's.")
    ] = "qupath",
    threads: Threads = 2,
    record: Record = None,
) -> None:
    """Stage 4: turn the class map into polygons that QuPath opens.

    Example: sampath-wsi vectorize a/segmentation.ome.zarr --out a/segmentation.geojson.gz
    """
    with stage_run("vectorize", str(segmentation), record) as run:
        from sampath_wsi.validation import check_finite
        from sampath_wsi.vectorize import vectorize as vectorize_store

        check_finite(tolerance=tolerance, min_area=min_area, min_hole=min_hole)
        result = vectorize_store(
            segmentation,
            out,
            tolerance_um=tolerance,
            min_area_um2=min_area,
            min_hole_um2=min_hole,
            objects=objects,
            object_type=object_type,
            frame=frame,
            workers=threads,
            progress=run.progress,
        )
        run.facts.update(
            objects=result.objects,
            vertices=result.n_vertices,
            json_bytes=result.json_bytes,
            changed_by_cleaning=result.changed_fraction,
            frame=frame,
            warnings=list(result.warnings),
        )


def _frame(card: ModelCard, path: Path) -> ModelFrame:
    from sampath_wsi.files import sha256
    from sampath_wsi.infer import ModelFrame
    from sampath_wsi.model.bundle import WEIGHTS_NAME

    return ModelFrame(
        name=card.name,
        weights_sha256=card.weights_sha256 or sha256(path / WEIGHTS_NAME),
        classes=tuple(entry.model_dump(mode="json") for entry in card.classes),
        mpp=card.mpp,
        tile_px=card.tile_px,
        output_stride=card.output_stride,
    )


def _device_name(device: object) -> str:
    import torch

    assert isinstance(device, torch.device)
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
