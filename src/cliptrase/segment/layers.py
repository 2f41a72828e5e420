"""Class probabilities of the features of several layers, and their spreading: CLIPer."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.segment.logits import patch_logits

SCALE = 100.0  # of cosines, before the softmax
LEAST = 0.1  # of a name's largest probability: smaller ones of the last layer are not spread


def fused_probabilities(
    layers: Sequence[Tensor],
    attention: Tensor,
    names: Tensor,
    of_classes: Tensor,
    grid: tuple[int, int],
    cls: Tensor | None = None,
) -> Tensor:
    """Scores (B, M, h, w), 0 to 2, of normalised features (B, N, E) of `layers`, the last one last
    (CLIPer, ICCV 2025, section 3.2, without its diffusion model; its code where that says more).

    p_i is softmax(100·cos) of layer i over M + 1 names. The last one, which is dropped, is the
    normalised mean of the `names` (M, E) that are `of_classes` (M,) bool, not background. q is p of
    the last layer with entries below a tenth of the name's largest one set to 0. The score of a
    name at patch j is Σ_i q_i·B_ij + mean of all p at j, q in the place of the last one; B is
    `attention` (B, N, N). With `cls` (B, E) cosines are multiplied as `patch_logits` does.
    """
    mean = F.normalize(names[of_classes].mean(dim=0), dim=0)
    asked = torch.cat([names, mean[None]])

    def probabilities(patches: Tensor) -> Tensor:
        logits = patch_logits(patches, asked, grid, SCALE, cls)
        return logits.flatten(2).softmax(dim=1)[:, :-1]

    *earlier, last = layers
    likely = probabilities(last)
    likely = likely.masked_fill(likely < LEAST * likely.amax(dim=2, keepdim=True), 0)
    total = sum(map(probabilities, earlier), torch.zeros(())) + likely
    return (likely @ attention + total / len(layers)).unflatten(2, grid)
