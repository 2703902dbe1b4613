"""Memory of one training step of the paper's architecture: do frozen encoders hold activations?

    python benchmarks/training_memory.py                      # on the CPU: three minutes, 7 GB
    python benchmarks/training_memory.py --device cuda --batch 12 --precision bf16

Three steps on the same image: of the trainable parts alone (the encoders' features are given), of the whole model with
frozen encoders, and with encoders that learn too. Counted are the bytes that autograd keeps from the forward pass for
the backward pass (parameters left out), and on a GPU also the most that was ever allocated. Goal: frozen encoders keep
nothing, so that the first two are the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from common import print_machine, print_table

from sampath_wsi.model.sampath import SamPath, trainable_parameters, upsample_logits
from sampath_wsi.model.zoo import template_card
from sampath_wsi.training.loss import sam_path_loss

MB = 1e6


@contextmanager
def counted_saves(model: SamPath) -> Iterator[dict[int, int]]:
    """Bytes of every storage that autograd saves meanwhile, but for parameters and buffers."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def measure(kind: str, images: torch.Tensor, labels: torch.Tensor, backward: bool) -> list[str]:
    """One row of the table."""
    torch.manual_seed(0)
    card = template_card("sampath-bcss")
    model = SamPath(card.architecture, len(card.classes)).to(images.device)
    if kind != "encoders learn too":
        model.freeze_encoders()
    device = images.device.type
    given = None
    if kind == "trainable parts alone":
        with torch.no_grad():
            given = model.encode(images)
    optimiser = torch.optim.AdamW(trainable_parameters(model))
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    begun = time.monotonic()
    with counted_saves(model) as saved:
        logits, iou = model.decode(given) if given is not None else model(images)
        loss = sam_path_loss(upsample_logits(logits, (labels.shape[1], labels.shape[2])), iou, labels).total
    kept = sum(saved.values())
    if backward:
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    seconds = time.monotonic() - begun
    peak = f"{(torch.cuda.max_memory_allocated() - before) / MB:.0f}" if device == "cuda" else "-"
    learn = sum(p.numel() for p in trainable_parameters(model))
    # Gradient and AdamW's two moments, each as large as the parameters.
    return [kind, f"{learn / 1e6:.2f}", f"{kept / MB:.1f}", f"{3 * 4 * learn / MB:.1f}", peak, f"{seconds:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments = parser.parse_args()
    images = torch.rand(arguments.batch, 3, 1024, 1024, device=arguments.device)
    labels = torch.randint(0, 6, (arguments.batch, 1024, 1024), device=arguments.device)
    print_machine("torch", "timm", "segment-anything")
    rows = []
    mixed = torch.autocast(arguments.device, torch.bfloat16) if arguments.precision == "bf16" else nullcontext()
    for kind in ("trainable parts alone", "frozen encoders", "encoders learn too"):
        # On a CPU the backward pass of the encoders takes minutes and adds nothing to what is kept.
        backward = kind != "encoders learn too" or arguments.device != "cpu"
        with mixed:
            rows.append(measure(kind, images, labels, backward))
    print_table(("step", "trainable M", "kept for backward MB", "gradient + AdamW MB", "peak MB", "s"), rows)


if __name__ == "__main__":
    main()
