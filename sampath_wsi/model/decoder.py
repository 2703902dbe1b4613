"""SAM's mask decoder with a trainable token for each class in place of SAM's mask tokens and prompts."""

from __future__ import annotations

import copy

import torch
from torch import nn

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom

_HEADS = 8
_MLP_RATIO = 8


class ClassTokenDecoder(MaskDecoder):
    """SAM's decoder whose output tokens are classes, for batches of images.

    There is one token more than channels: as in SAM with several masks wanted, the mask of token 0 is dropped.

    Parameters
    ----------
    channels
        Masks that come out: "unlabelled" and every class.
    dim
        Channels of the features: 256 in the paper.
    """

    def __init__(self, channels: int, dim: int) -> None:
        transformer = TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=_MLP_RATIO * dim, num_heads=_HEADS)
        super().__init__(
            transformer_dim=dim, transformer=transformer, num_multimask_outputs=channels, iou_head_hidden_dim=dim
        )

    def forward(
        self, features: torch.Tensor, positions: torch.Tensor, dense_prompt: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks and their predicted IoU.

        Parameters
        ----------
        features
            ``(B, dim, grid, grid)`` from the neck.
        positions
            ``(1, dim, grid, grid)`` positional encoding.
        dense_prompt
            ``(1, dim, 1, 1)`` added to the features.

        Returns
        -------
        Logits ``(B, channels, 4 * grid, 4 * grid)`` and IoU ``(B, channels)``.
        """
        batch, dim, rows, columns = features.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(batch, -1, -1)
        tokens, image = self.transformer(features + dense_prompt, positions.expand_as(features), tokens)
        image = self.output_upscaling(image.transpose(1, 2).reshape(batch, dim, rows, columns))
        # The first token is SAM's IoU token. The first mask's network runs only so that it has (zero) gradients.
        weights = [mlp(tokens[:, i + 1]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        logits = (torch.stack(weights, dim=1)[:, 1:] @ image.flatten(2)).unflatten(2, image.shape[2:])
        return logits, self.iou_prediction_head(tokens[:, 0])[:, 1:]

    def copy_first_hypernetwork(self) -> None:
        """Let every class begin with the hypernetwork of token 0."""
        first, *others = self.output_hypernetworks_mlps
        for mlp in others:
            mlp.load_state_dict(copy.deepcopy(first.state_dict()))


class DensePrompt(nn.Module):
    """What remains of SAM's prompt encoder when nobody prompts: the positional encoding and "no mask"; never trained.

    Parameters
    ----------
    dim
        Channels of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pe_layer = PositionEmbeddingRandom(dim // 2)
        self.no_mask_embed = nn.Embedding(1, dim).requires_grad_(False)

    def forward(self, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The positional encoding ``(1, dim, rows, columns)`` and the dense prompt ``(1, dim, 1, 1)``."""
        return self.pe_layer((rows, columns)).unsqueeze(0), self.no_mask_embed.weight.view(1, -1, 1, 1)
