"""The forward pass beside its reference: seconds an image of the model's size, and what changes in the result.

    python benchmarks/forward.py                              # this CPU, the paper's architecture, random weights
    python benchmarks/forward.py --model path/to/bundle --compile
    python benchmarks/forward.py --device cuda --batch 16 --compile

The reference is the same weights in segment-anything's own encoder and timm's ViT, in fp32, an image at a time: as timm
comes (fused attention), and with the attention of the ViT written out, as in HIPT's own code, which the authors run.
Every variant runs in processes of its own, several in turn; of all passes but each process' first the fastest counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import print_machine, print_table
from paper_model import write_random_model

REFERENCE = "reference"
CPU_VARIANTS = {
    REFERENCE: "reference",
    "reference-written-out": "reference, ViT's attention written out",
    "fp32-malloc": "ours, fp32, malloc as it comes",
    "fp32": "ours, fp32",
    "fp16": "ours, fp16 encoders",
    "bf16": "ours, bf16 encoders",
}
CUDA_VARIANTS = {
    REFERENCE: "reference",
    "reference-written-out": "reference, ViT's attention written out",
    "fp32": "ours, fp32",
    "fp16": "ours, fp16 encoders",
    "bf16": "ours, bf16 encoders",
}
COMPILED = {"fp32-compiled": "ours, fp32, torch.compile", "bf16-compiled": "ours, bf16 encoders, torch.compile"}
COMPILED_CUDA = {
    "fp16-compiled": "ours, fp16 encoders, torch.compile",
    "fp16-compiled-graphs": "ours, fp16 encoders, torch.compile with CUDA graphs",
}
PASSES = 3


def run_one(variant: str, bundle: Path, image: Path, out: Path, device: str, batch: int, profile: bool) -> None:
    """Time one variant in this process; writes logits and a JSON record beside each other."""
    import torch

    from sampath_wsi.machine.memory import keep_freed_memory
    from sampath_wsi.model.bundle import load_bundle

    is_reference = variant.startswith(REFERENCE)
    if not is_reference and device == "cpu" and not variant.endswith("malloc"):
        keep_freed_memory()
    model: Any = load_bundle(bundle, device).model
    if is_reference:
        use_reference_attention(model, written_out=variant.endswith("written-out"))
    else:
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[variant.split("-")[0]]
        model.set_encoder_precision(dtype)
    if "-compiled" in variant:
        model.encode = torch.compile(model.encode, mode="reduce-overhead" if variant.endswith("graphs") else "default")
    pixels = torch.from_numpy(np.load(image)).to(device).permute(2, 0, 1)[None].float() / 255
    pixels = pixels.expand(1 if is_reference or device == "cpu" else batch, -1, -1, -1).contiguous()
    record: dict[str, Any] = {"seconds": []}
    with torch.inference_mode():
        for _ in range(1 + PASSES):
            before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            logits, _ = model(pixels)
            if device != "cpu":
                torch.cuda.synchronize()
            record["seconds"].append((time.perf_counter() - begun) / len(pixels))
            after = resource.getrusage(resource.RUSAGE_SELF)
            record["faults"] = after.ru_minflt - before.ru_minflt
        if profile:
            print_shares(lambda: model(pixels), device)
    record["first"] = record["seconds"].pop(0)
    on_gpu = torch.cuda.max_memory_allocated() if device != "cpu" else 0
    record["peak_mb"] = on_gpu / 1e6 or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    np.save(out.with_suffix(".npy"), logits[0].float().cpu().numpy())
    out.write_text(json.dumps(record))


def use_reference_attention(model: Any, *, written_out: bool) -> None:
    """Put segment-anything's own attention back, with the same parameters, and timm's unfused one if wanted."""
    import torch
    from segment_anything.modeling.image_encoder import Attention

    for block in model.sam_encoder.blocks:
        fused = block.attn
        cells = ((fused.rel_pos_h.shape[0] + 1) // 2, (fused.rel_pos_w.shape[0] + 1) // 2)
        with torch.device("meta"):
            plain = Attention(fused.qkv.in_features, fused.heads, use_rel_pos=True, input_size=cells)
        plain.qkv, plain.proj = fused.qkv, fused.proj
        plain.rel_pos_h, plain.rel_pos_w = fused.rel_pos_h, fused.rel_pos_w
        block.attn = plain
    for block in model.pathology_encoder.model.blocks:
        block.attn.fused_attn = not written_out


def print_shares(forward: Any, device: str) -> None:
    """Print the operators (on a GPU, the kernels) that take most of the time of a pass."""
    from torch.profiler import profile

    with profile() as profiler:
        forward()
    key = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    total = sum(getattr(event, key) for event in events)
    print_table(
        ("operator", "share %", "calls"), [(e.key[:80], 100 * getattr(e, key) / total, e.count) for e in events[:10]]
    )


def write_image(path: Path, size_px: int) -> None:
    """A tile of a synthetic slide, (y, x, 3) bytes."""
    from sampath_wsi.geometry import Box
    from sampath_wsi.slides import SlideReader, inspect_slide
    from sampath_wsi.synthetic import make_slide

    with tempfile.TemporaryDirectory() as scratch:
        slide = Path(scratch) / "slide.tif"
        make_slide(slide, width_px=4 * size_px, height_px=3 * size_px)
        reader = SlideReader(inspect_slide(slide))
        np.save(path, reader.read(Box(1.5 * size_px, size_px, size_px, size_px), (size_px, size_px)))


def print_limit(device: str) -> None:
    """Print how fast this machine multiplies matrices: what no forward pass can beat."""
    import torch

    rows = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x, w = torch.randn(4096, 768, device=device).to(dtype), torch.randn(3072, 768, device=device).to(dtype)
        seconds = []
        for _ in range(10):
            begun = time.perf_counter()
            torch.nn.functional.linear(x, w)
            if device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
        rate = 2 * 4096 * 768 * 3072 / min(seconds) / 1e9
        rows.append((str(dtype).removeprefix("torch."), rate, 1462 / rate))
    print_table(("matrix product 4096 x 768 x 3072", "GFLOP/s", "s for the 1462 GFLOP of an image"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", type=Path, help="a bundle of SAM-Path with both encoders; default: random weights")
    parser.add_argument("--batch", type=int, default=16, help="images at once of ours on a GPU")
    parser.add_argument("--compile", action="store_true", help="torch.compile too (needs a C++ compiler)")
    parser.add_argument("--rounds", type=int, default=2, help="processes a variant")
    parser.add_argument("--profile", help="print the operators' shares of this variant only")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        image, out = Path(options.one[1]), Path(options.one[2])
        run_one(options.one[0], options.model, image, out, options.device, options.batch, bool(options.profile))
        return
    print_machine("torch", "timm", "segment-anything")
    variants = dict(CPU_VARIANTS if options.device == "cpu" else CUDA_VARIANTS)
    if options.compile:
        variants |= COMPILED if options.device == "cpu" else COMPILED | COMPILED_CUDA
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.model is None:
            options.model = folder / "bundle"
            write_random_model(options.model)
        write_image(folder / "image.npy", 1024)
        print_limit(options.device)
        if options.profile:
            start(options.profile, folder, options)
            return
        records: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
        for _ in range(options.rounds):
            for variant in variants:
                records[variant].append(start(variant, folder, options))
        print_results(variants, records, folder)


def start(variant: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one variant in a process of its own."""
    out = folder / f"{variant}.json"
    command = [sys.executable, __file__, "--one", variant, str(folder / "image.npy"), str(out)]
    command += ["--model", str(options.model), "--device", options.device, "--batch", str(options.batch)]
    subprocess.run([*command, *(["--profile", variant] if options.profile else [])], check=True)
    record: dict[str, Any] = json.loads(out.read_text())
    return record


def print_results(variants: dict[str, str], records: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    best = {variant: min(s for record in records[variant] for s in record["seconds"]) for variant in variants}
    expected = np.load(folder / f"{REFERENCE}.npy")
    rows = []
    for variant, name in variants.items():
        logits = np.load(folder / f"{variant}.npy")
        same = (logits[1:].argmax(0) == expected[1:].argmax(0)).mean()
        rows.append(
            (
                name,
                best[variant],
                records[variant][0]["first"],
                best[REFERENCE] / best[variant],
                best["reference-written-out"] / best[variant],
                f"{100 * same:.2f}",
                f"{np.abs(logits - expected).max():.1e}",
                records[variant][0]["faults"],
                records[variant][0]["peak_mb"],
            )
        )
    header = "variant,s an image,first pass s,times reference,times written out,labels equal %,"
    print_table((*(header + "logits differ by,page faults,peak MB").split(","),), rows)


if __name__ == "__main__":
    main()
