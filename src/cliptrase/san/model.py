"""SAN: CLIP, its side network, and what both make of a picture."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliptrase.model import vision
from cliptrase.model.load import Clip
from cliptrase.san.network import SideNetwork
from cliptrase.san.recognition import recognise
from cliptrase.san.settings import San
from cliptrase.san.store import blocks_after


class Answer(NamedTuple):
    """classes (B, Q, K + 1): logits, "no object" last. masks (B, Q, h, w): logits."""

    classes: Tensor
    masks: Tensor


class SanModel(nn.Module):
    """What is learned: the side network, the embedding of "no object", and CLIP's positions where
    the experiment trains them. CLIP's other weights and the text features are not parameters."""

    def __init__(self, san: San, clip: Clip, text: Tensor) -> None:
        """text: features (K, E) of the names, normalised."""
        super().__init__()
        self.clip, self.text, self.fused = clip, text, tuple(san.fusion)
        self.first = san.recognition
        width = clip.visual.proj.shape[0]
        self.side = SideNetwork(san, width, clip.blocks[0].attn.num_heads)
        text_width = clip.text.ln_final.weight.shape[0]
        self.no_object = nn.Parameter(torch.randn(1, clip.embed_dim) * text_width**-0.5)
        self.clip_position: nn.Parameter | None = None
        if san.train_positions:
            self.clip_position = nn.Parameter(clip.visual.positional_embedding.clone())

    def clip_tokens(self, pixels: Tensor) -> dict[int, Tensor]:
        """block → CLIP's tokens (B, 1 + N, D) after it, of normalised `pixels` (B, 3, h, w), with
        the learned positions: bicubic where the grid is another one."""
        assert self.clip_position is not None
        visual, grid = self.clip.visual, vision.grid(self.clip, pixels)
        position: Tensor = self.clip_position
        if grid != tuple(visual.grid_size):
            square = position[1:].T.unflatten(1, visual.grid_size)[None]
            square = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
            position = torch.cat([position[:1], square[0].flatten(1).T])
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.expand(len(pixels), 1, -1)
        tokens = visual.ln_pre(torch.cat([cls, patches], dim=1) + position)
        taken = tuple(sorted({*self.fused, *range(self.first, self.clip.depth)}))
        return dict(zip(taken, blocks_after(self.clip, tokens, taken), strict=True))

    def forward(self, pixels: Tensor, tokens: Mapping[int, Tensor]) -> list[Answer]:
        """Answers of each supervised block, of normalised `pixels` (B, 3, H, W) and CLIP's tokens
        after the blocks that are fused and before those that recognise."""
        clip, side = self.clip, next(iter(tokens.values())).shape[1] - 1
        rows = round((side * pixels.shape[2] / pixels.shape[3]) ** 0.5)
        grid = rows, side // rows
        patches = {block: tokens[block][:, 1:] for block in self.fused}
        proposals = self.side(pixels, patches, grid)
        entering = [tokens[block] for block in range(self.first, clip.depth)]
        count = proposals[0].masks.shape[1]
        # copies do not see each other, so that those of all supervised blocks go together
        bias = torch.cat([each.bias for each in proposals], dim=2)
        seen = recognise(clip, entering, bias, grid).split(count, dim=1)
        with torch.autocast(pixels.device.type, enabled=False):  # cosines of 0.2 times 100
            names = F.normalize(torch.cat([self.text, self.no_object]), dim=-1)
            scale = clip.model.logit_scale.exp()
            logits = [scale * each.float() @ names.T for each in seen]
        masks = [each.masks for each in proposals]
        return [Answer(*each) for each in zip(logits, masks, strict=True)]


def label_maps(answer: Answer, size: tuple[int, int]) -> Tensor:
    """Classes (B, H, W) int64: argmax_c Σ_q softmax(classes)_qc · sigmoid(mask_q), without "no
    object", the masks bilinearly upsampled before the sum."""
    masks = F.interpolate(answer.masks.float(), size=size, mode="bilinear", align_corners=False)
    chances = answer.classes.float().softmax(dim=-1)[..., :-1]
    return torch.einsum("bqk,bqhw->bkhw", chances, masks.sigmoid()).argmax(dim=1)
