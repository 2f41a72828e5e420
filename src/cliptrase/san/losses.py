"""SAN's losses: which query answers for which class of a picture, and how wrong it is.

Shapes: B pictures, Q queries, K classes, P points. A picture has one binary mask for each class
that is in it. As in Mask2Former, masks are compared at points.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cliptrase.shapes.stream import Stream

CLASS, MASK, DICE = 2.0, 5.0, 5.0  # weights, of costs and of losses
NO_OBJECT = 0.1  # weight of the class "no object", in the loss alone
OVERSAMPLED, UNCERTAIN = 3, 0.75  # of points: so many are drawn, this share are the least certain


class Truth(NamedTuple):
    """classes (M,) int64 that are in a picture, and the mask (M, H, W) float of each, 0 or 1."""

    classes: Tensor
    masks: Tensor


def truth_of(classes: NDArray[np.integer], none: int, device: torch.device | str = "cpu") -> Truth:
    """Of a picture's classes (H, W), `none` where no class counts."""
    present = np.unique(classes)
    present = present[present != none].astype(np.int64)
    masks = torch.from_numpy((classes[None] == present[:, None, None]).astype(np.float32))
    return Truth(torch.from_numpy(present).to(device), masks.to(device))


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Values (M, P) of maps (M, H, W) at points (M, P, 2), x and y from 0 to 1, bilinearly; beyond
    the middle of border cells they fade to 0, as in Mask2Former."""
    grid = 2 * points.unsqueeze(2) - 1
    return F.grid_sample(maps.unsqueeze(1), grid, align_corners=False)[:, 0, :, 0]


def dice(shares: Tensor, truth: Tensor) -> Tensor:
    """1 − (2·Σpt + 1)/(Σp + Σt + 1) of shares and truth (…, P)."""
    both = (shares * truth).sum(dim=-1)
    return 1 - (2 * both + 1) / (shares.sum(dim=-1) + truth.sum(dim=-1) + 1)


def matching_costs(logits: Tensor, masks: Tensor, classes: Tensor, truth: Tensor) -> Tensor:
    """Costs (Q, M) of a picture: class logits (Q, K + 1), mask logits (Q, P) and true masks (M, P)
    at the same points, true classes (M,)."""
    chance = logits.softmax(dim=-1)[:, classes]
    points, shares = masks.shape[1], masks.sigmoid()
    entropy = F.softplus(masks).sum(dim=1)[:, None] - masks @ truth.T
    both = shares @ truth.T
    dices = 1 - (2 * both + 1) / (shares.sum(dim=1)[:, None] + truth.sum(dim=1) + 1)
    return MASK * entropy / points + DICE * dices - CLASS * chance


def matched(costs: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and classes (M,), each class with its own query, of the least sum of costs (Q, M)."""
    rows, columns = linear_sum_assignment(costs.double().cpu().numpy())
    return torch.from_numpy(rows), torch.from_numpy(columns)


class Points(NamedTuple):
    """Where the B pictures and M true masks of a batch are compared, x and y from 0 to 1: (B, P, 2)
    to match; candidates (M, 3·P, 2), of which the least certain are taken, and others (M, P / 4,
    2)."""

    matching: Tensor
    candidates: Tensor
    others: Tensor

    def part(self, truths: Sequence[Truth], some: slice) -> "Points":
        """Those of some pictures of the batch, whose `truths` are given."""
        first, count = (
            sum(len(t.classes) for t in each) for each in (truths[: some.start], truths[some])
        )
        own = slice(first, first + count)
        return Points(self.matching[some], self.candidates[own], self.others[own])


def drawn_points(truths: Sequence[Truth], points: int, stream: Stream) -> Points:
    """Of a batch, before it is computed in parts, so that these do not decide what is drawn."""
    masks, least = sum(len(each.classes) for each in truths), int(UNCERTAIN * points)
    counts = (len(truths), points), (masks, OVERSAMPLED * points), (masks, points - least)
    return Points(*(torch.from_numpy(stream.uniforms(*count, 2)) for count in counts))


def least_certain(masks: Tensor, points: Points) -> Tensor:
    """Points (M, P, 2) for mask logits (M, h, w): three quarters are those candidates whose logits
    are nearest to 0, the rest are the others."""
    drawn, others = (each.to(masks.device) for each in (points.candidates, points.others))
    chosen = points.matching.shape[1] - others.shape[1]
    nearest = at_points(masks, drawn).abs().topk(chosen, dim=1, largest=False).indices
    kept = drawn.gather(1, nearest.unsqueeze(2).expand(-1, -1, 2))
    return torch.cat([kept, others], dim=1)


class Whole(NamedTuple):
    """What the losses of a batch are divided by, whichever parts it is computed in: the number of
    true masks, and the weights of all queries."""

    masks: int
    weight: float


def whole_of(truths: Sequence[Truth], queries: int) -> Whole:
    """Of a batch: every class has one query, and the others weigh less."""
    masks = sum(len(each.classes) for each in truths)
    return Whole(masks, masks + NO_OBJECT * (len(truths) * queries - masks))


def loss_of(
    logits: Tensor,
    masks: Tensor,
    truths: Sequence[Truth],
    points: Points,
    whole: Whole | None = None,
) -> Tensor:
    """Of one supervised block: class logits (B, Q, K + 1) and mask logits (B, Q, h, w).

    2·CE + 5·BCE + 5·dice. CE is over all queries, those without a class at weight 0.1; sums of
    masks are divided by the number of true masks in the batch. whole: the batch that these pictures
    are a part of, None for all of it.
    """
    picture, query, truth = list[int](), list[Tensor](), list[Tensor]()
    target = torch.full(logits.shape[:2], logits.shape[2] - 1, device=logits.device)
    uniform = points.matching.to(masks.device)
    with torch.no_grad():
        for place, each in enumerate(truths):
            count = len(each.classes)
            if not count:
                continue
            spots = uniform[place].expand(max(count, masks.shape[1]), -1, -1)
            costs = matching_costs(
                logits[place],
                at_points(masks[place].float(), spots[: masks.shape[1]]),
                each.classes,
                at_points(each.masks, spots[:count]),
            )
            queries, columns = (index.to(masks.device) for index in matched(costs))
            target[place, queries] = each.classes[columns]
            picture += [place] * count
            query.append(queries)
            truth.append(each.masks[columns])
    weight = logits.new_ones(logits.shape[2])
    weight[-1] = NO_OBJECT
    told = logits.flatten(0, 1), target.flatten(), weight
    if whole is None:
        loss = CLASS * F.cross_entropy(*told)
    else:
        loss = CLASS * F.cross_entropy(*told, reduction="sum") / whole.weight
    if not picture:
        return loss
    chosen = masks[torch.tensor(picture, device=masks.device), torch.cat(query)].float()
    with torch.no_grad():
        places = least_certain(chosen, points)
        spots = places.split([len(each) for each in truth])
        true = torch.cat([at_points(*each) for each in zip(truth, spots, strict=True)])
    found = at_points(chosen, places)
    entropy = F.binary_cross_entropy_with_logits(found, true, reduction="none").mean(dim=1)
    wrong = (MASK * entropy + DICE * dice(found.sigmoid(), true)).sum()
    return loss + wrong / (whole.masks if whole else len(picture))
