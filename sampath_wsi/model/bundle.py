"""A trained model on disk: a folder with ``card.json`` and ``weights.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sampath_wsi.errors import ModelError
from sampath_wsi.files import sha256 as sha256_of
from sampath_wsi.files import written_aside
from sampath_wsi.model.card import CARD_NAME, WEIGHTS_NAME, ModelCard
from sampath_wsi.model.sampath import SamPath
from sampath_wsi.model.zoo import resolve_model


class Bundle(NamedTuple):
    """A model as loaded: its card, which says the SHA-256 of its weights, and the network, in eval mode and float32."""

    card: ModelCard
    model: SamPath


def save_bundle(folder: str | Path, model: SamPath, card: ModelCard, dtype: torch.dtype = torch.float16) -> ModelCard:
    """Write a model and its card; weights first, so that a card never stands beside older weights.

    Parameters
    ----------
    folder
        Made if it does not exist; a bundle in it is replaced.
    model
        The model; moved nowhere.
    card
        Its card; ``weights_sha256`` is filled in.
    dtype
        What the weights are stored as.

    Returns
    -------
    The card as written.

    Raises
    ------
    ModelError
        If the card does not describe the model, or a weight is not finite in ``dtype``.
    """
    _check_card_describes(model, card)
    state = {}
    # The positional encoding multiplies coordinates by 2 pi: it is worth its few bytes in float32.
    buffers = {name for name, _ in model.named_buffers()}
    for key, tensor in model.state_dict().items():
        stored = tensor.detach().to("cpu", torch.float32 if key in buffers else dtype).contiguous()
        if not torch.isfinite(stored).all():
            raise ModelError(f"the weight '{key}' is not finite as {dtype}", "Store the model as float32.")
        state[key] = stored
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD_NAME).unlink(missing_ok=True)
    with written_aside(folder / WEIGHTS_NAME) as aside:
        save_file(state, aside)
        # safetensors writes for the owner alone; models are shared.
        aside.chmod(0o644)
    written = card.model_copy(update={"weights_sha256": sha256_of(folder / WEIGHTS_NAME)})
    written.write(folder / CARD_NAME)
    return written


def load_bundle(name_or_path: str | Path, device: str | torch.device = "cpu") -> Bundle:
    """Load a model by its name in the zoo or its path.

    Raises
    ------
    ModelError
        If there is no such model, its card is invalid, or its weights are missing, damaged or not the card's.
    """
    path = resolve_model(name_or_path)
    card, weights = ModelCard.read(path / CARD_NAME), path / WEIGHTS_NAME
    card = card.model_copy(update={"weights_sha256": _checked_sha256(weights, card)})
    try:
        state = load_file(weights)
    except (SafetensorError, OSError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{weights}: not a whole safetensors file ({error})", "Get the model again.") from error
    with torch.device("meta"):
        model = SamPath(card.architecture, len(card.classes), mean=card.mean, std=card.std)
    check_state(state, model.state_dict(), f"{weights}: the weights do not fit the card's architecture")
    model.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)
    return Bundle(card, model.to(device).eval().requires_grad_(False))


def check_state(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], what: str) -> None:
    """Check that a state has exactly the expected keys and shapes.

    Raises
    ------
    ModelError
        Its message begins with ``what`` and names the first missing, unexpected and misshapen keys.
    """
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    differences = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in (
            ("missing", [key for key in expected if key not in state]),
            ("unexpected", [key for key in state if key not in expected]),
            ("misshapen", misshapen),
        )
        if names
    ]
    if differences:
        raise ModelError(f"{what}: {'; '.join(differences)}", "Check that the file belongs to this model.")


def _check_card_describes(model: SamPath, card: ModelCard) -> None:
    if model.architecture != card.architecture or model.n_classes != len(card.classes):
        raise ModelError(
            f"the card '{card.name}' describes another model (architecture or classes) than it is saved with"
        )
    for name, wanted in (("mean", card.mean), ("std", card.std)):
        if not torch.allclose(getattr(model, name).flatten().cpu(), torch.tensor(wanted)):
            raise ModelError(f"the card '{card.name}' states another input {name} than the model uses")


def _checked_sha256(weights: Path, card: ModelCard) -> str:
    remedy = "Get the model again."
    try:
        sha256 = sha256_of(weights)
    except FileNotFoundError:
        raise ModelError(f"{weights}: the model's weights are missing", remedy) from None
    except OSError as error:
        raise ModelError(f"{weights}: the model's weights cannot be read ({error.strerror})", remedy) from error
    if card.weights_sha256 and sha256 != card.weights_sha256:
        raise ModelError(
            f"{weights}: truncated or altered (SHA-256 {sha256[:12]}... instead of the card's "
            f"{card.weights_sha256[:12]}...)",
            remedy,
        )
    return sha256
