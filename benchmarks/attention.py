"""Ways to compute SAM's attention with decomposed relative positions, on the device at hand.

    python benchmarks/attention.py
    python benchmarks/attention.py --device cuda --dtype float16 --images 16
    python benchmarks/attention.py --flex            # FlexAttention too: it is compiled first, which takes a minute

The shapes are those of SAM ViT-B at 1024 px: a global block (4096 cells) and a windowed one (25 windows of 196).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from common import print_machine, print_table

from sampath_wsi.machine.memory import keep_freed_memory
from sampath_wsi.model.libraries import segment_anything
from sampath_wsi.model.sam_encoder import attend_biased, attend_folded, relative_scores

HEADS, CHANNELS = 12, 64
REPEATS = 5
Way = Callable[..., torch.Tensor]


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel: torch.Tensor, side: int) -> torch.Tensor:
    """As segment-anything computes it."""
    shape = q.shape
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    scores = (q * CHANNELS**-0.5) @ k.transpose(-2, -1)
    add_decomposed_rel_pos = segment_anything.modeling.image_encoder.add_decomposed_rel_pos
    scores = add_decomposed_rel_pos(scores, q, rel, rel, (side, side), (side, side))
    return (scores.softmax(dim=-1) @ v).view(shape)


def biased(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel: torch.Tensor, side: int) -> torch.Tensor:
    return attend_biased(q, k, v, *relative_scores(q, rel, rel, (side, side)))


def folded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel: torch.Tensor, side: int) -> torch.Tensor:
    return attend_folded(q, k, v, *relative_scores(q, rel, rel, (side, side)))


def flexible() -> Way:
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel: torch.Tensor, side: int) -> torch.Tensor:
        rel_h, rel_w = relative_scores(q, rel, rel, (side, side))

        def add_relative(
            score: torch.Tensor, b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor
        ) -> torch.Tensor:
            return score + rel_h[b, h, i, j // side] + rel_w[b, h, i, j % side]

        result: torch.Tensor = compiled(q, k, v, score_mod=add_relative)
        return result

    return attend


def seconds(way: Way, *arguments: object) -> float:
    """The fastest of some repetitions."""
    best = float("inf")
    for _ in range(1 + REPEATS):
        begun = time.perf_counter()
        result = way(*arguments)
        if result.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--flex", action="store_true")
    options = parser.parse_args()
    print_machine("torch", "segment-anything")
    if options.device == "cpu":
        keep_freed_memory()
    ways: dict[str, Way] = {"written out (reference)": written_out, "SDPA, bias by pieces": biased}
    ways["SDPA, folded into longer keys"] = folded
    if options.flex:
        ways["FlexAttention"] = flexible()
    torch.manual_seed(0)
    rows = []
    with torch.inference_mode():
        for block, batch, side in (("global", options.images, 64), ("windows", 25 * options.images, 14)):
            shape = batch, HEADS, side * side, CHANNELS
            tensors = [torch.randn(shape, device=options.device) for _ in range(3)]
            tensors.append(0.1 * torch.randn(2 * side - 1, CHANNELS, device=options.device))
            exact = written_out(*tensors, side)
            tensors = [t.to(getattr(torch, options.dtype)) for t in tensors]
            reference = seconds(written_out, *tensors, side)
            for name, way in ways.items():
                s = reference if way is written_out else seconds(way, *tensors, side)
                off = (way(*tensors, side).float() - exact).abs().max()
                rows.append((f"{block}: {name}", 1000 * s / options.images, reference / s, f"{off:.1e}"))
    print_table((f"{options.dtype} on {options.device}", "ms an image", "times reference", "differs by"), rows)


if __name__ == "__main__":
    main()
