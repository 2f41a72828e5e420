"""Train the embedded SAM (assets/shapes_sam) on scenes and the masks of their labels, on one core.

    python -m cliptrase.shapes.train_sam          # all of it: about 40 minutes on one core
    python -m cliptrase.shapes.train_sam --card   # only measure and describe what is there

The model is transformers' own SamModel. It learns masks without names: a raw label's pixels or one
connected part of them. Everything random follows from the step's number, so a run that was
interrupted ends bit for bit where an uninterrupted one does (one thread, same machine).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor
from transformers import SamModel

from cliptrase.shapes import descent, scenes
from cliptrase.shapes.sam import LOW, SIZE, decode, export, new_model, to_pixels
from cliptrase.shapes.stream import Stream
from cliptrase.shapes.train import training_scene

SMALLEST = 200  # pixels of a mask
CELL = SIZE // LOW  # pixels a side of a value of a low-resolution mask
# Patches a side of the embedded CLIP at 224 and at 336 pixels; the latter cost more, and are rarer.
GRIDS = (14, 14, 14, 21)


@dataclass(frozen=True)
class Schedule:
    """All that decides the weights."""

    steps: int = 4800
    scenes: int = 4  # of a step; half of them get scattered points, half a grid of them
    masks: int = 4  # of a scene
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    warm_up: int = 100
    dropped: float = 0.15  # of a grid's points
    flipped: float = 0.07  # of a mask's points in a grid, and as many of the others
    seed: int = 1

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then half a cosine to zero, by steps."""
        return descent.half_cosine(step, self.steps, self.learning_rate, self.warm_up)


class Prompts(NamedTuple):
    """points (B, M, P, 2) float32, (x, y) in pixels; labels (B, M, P): 1 in the mask, else 0."""

    points: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Batch:
    """images (B, 3, 224, 224) normalised; masks (B, M, 56, 56), 0 or 1.

    `scattered` prompts the first half of the scenes, `grid` the second.
    """

    images: Tensor
    masks: Tensor
    scattered: Prompts
    grid: Prompts


def draw_masks(label: np.ndarray, count: int, stream: Stream) -> np.ndarray:
    """Masks (count, H, W) bool of a label map (H, W), each of 200 pixels or more.

    Labels are taken in turn, in random order. One time in two it is one 8-connected part of it.
    """
    area = np.bincount(label.ravel())
    large = np.flatnonzero(area >= SMALLEST)
    order = large[stream.sample(len(large), len(large))]
    masks = []
    for index in range(count):
        mask = label == order[index % len(order)]
        if stream.chance(0.5):
            parts, _ = ndimage.label(mask, structure=np.ones((3, 3)))
            sizes = np.bincount(parts.ravel())
            fit = np.flatnonzero(sizes[1:] >= SMALLEST) + 1
            if len(fit):
                mask = parts == fit[stream.integer(len(fit))]
        masks.append(mask)
    return np.stack(masks)


def scattered_points(
    mask: np.ndarray, positives: int, negatives: int, stream: Stream
) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 2) uniform over a mask (H, W) and its complement, in that order; labels (P,)."""
    drawn = []
    for side, count in ((mask, positives), (~mask, negatives)):
        places = np.flatnonzero(side)
        at = (stream.uniforms(count) * len(places)).astype(np.int64)
        drawn.append(places[np.minimum(at, len(places) - 1)])
    y, x = np.divmod(np.concatenate(drawn), mask.shape[1])
    labels = np.arange(positives + negatives) < positives
    return np.stack([x, y], axis=1).astype(np.float32), labels


def grid_points(
    mask: np.ndarray, grid: int, dropped: float, flipped: float, stream: Stream
) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 2) at the centres of grid x grid patches, in ascending order; labels (P,).

    A mask between the centres gets the patch of one of its pixels. A share of the points is
    dropped, a share of the mask's labels is wrong, and on average as many of the others.
    """
    size = mask.shape[0]
    centres = (np.arange(grid, dtype=np.float64) + 0.5) * size / grid
    at = np.floor(centres).astype(np.int64)
    labels = mask[at][:, at].ravel()
    y, x = np.divmod(np.arange(grid * grid), grid)
    points = np.stack([centres[x], centres[y]], axis=1) - 0.5
    if not labels.any():
        places = np.flatnonzero(mask)
        row, column = divmod(int(places[stream.integer(len(places))]), size)
        labels[row * grid // size * grid + column * grid // size] = True
    kept = np.sort(
        np.argsort(stream.uniforms(grid * grid), kind="stable")[round(dropped * grid * grid) :]
    )
    inside = int(labels.sum())
    share = np.where(labels, flipped, flipped * min(1.0, inside / max(1, len(labels) - inside)))
    labels = labels ^ (stream.uniforms(grid * grid) < share)
    return points[kept].astype(np.float32), labels[kept]


def prompts(drawn: list[tuple[np.ndarray, np.ndarray]], masks: int) -> Prompts:
    """The prompts of several scenes, `masks` of each, all of the same number of points."""
    points, labels = (torch.from_numpy(np.stack(each)) for each in zip(*drawn, strict=True))
    return Prompts(points.unflatten(0, (-1, masks)), labels.long().unflatten(0, (-1, masks)))


def batch(schedule: Schedule, step: int) -> Batch:
    """The scenes, masks and prompts of a step, all from its number; every scene is seen once."""
    stream = Stream(schedule.seed, step)
    positives, negatives = 1 + stream.integer(8), stream.integer(9)
    grid = GRIDS[stream.integer(len(GRIDS))]
    images, masks = [], []
    drawn: tuple[list, list] = ([], [])
    for index in range(schedule.scenes):
        made = training_scene(scenes.TRAIN_SEEDS[step * schedule.scenes + index])
        way = -1 if stream.chance(0.5) else 1  # mirrored or not
        images.append(made.image[:, ::way])
        for mask in draw_masks(made.label[:, ::way], schedule.masks, stream):
            masks.append(mask)
            if 2 * index < schedule.scenes:
                drawn[0].append(scattered_points(mask, positives, negatives, stream))
            else:
                drawn[1].append(grid_points(mask, grid, schedule.dropped, schedule.flipped, stream))
    cells = np.stack(masks).reshape(-1, schedule.masks, LOW, CELL, LOW, CELL).mean(axis=(3, 5))
    low = torch.from_numpy(cells >= 0.5).float()
    return Batch(to_pixels(np.stack(images)), low, *(prompts(d, schedule.masks) for d in drawn))


def loss_of(logits: Tensor, predicted: Tensor, masks: Tensor) -> Tensor:
    """20 focal + dice of token 0 and of the best other token; squared errors of predicted IoU.

    logits (B, M, 4, h, w), predicted (B, M, 4), masks (B, M, h, w).
    """
    truth = masks[:, :, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    focal = ((1 - torch.exp(-entropy)).square() * entropy).mean(dim=(3, 4))
    share = logits.sigmoid()
    both = (share * truth).sum(dim=(3, 4))
    dice = 1 - (2 * both + 1) / (share.sum(dim=(3, 4)) + truth.sum(dim=(3, 4)) + 1)
    with torch.no_grad():
        actual = iou(logits > 0, truth > 0)
    each, error = 20 * focal + dice, (predicted - actual).square()
    single, others = each[:, :, 0] + error[:, :, 0], each[:, :, 1:].amin(dim=2)
    return (single + others + error[:, :, 1:].mean(dim=2)).mean()


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (...) of boolean masks (..., h, w); of two empty ones 0."""
    both = (first & second).sum(dim=(-2, -1))
    return both / (first | second).sum(dim=(-2, -1)).clamp_min(1)


def step_loss(model: SamModel, made: Batch) -> Tensor:
    """The mean loss over the masks of a step."""
    embeddings = model.vision_encoder(made.images).last_hidden_state
    half = len(made.scattered.points)
    parts = ((slice(half), made.scattered), (slice(half, None), made.grid))
    losses = [
        loss_of(*decode(model, embeddings[at], *asked), made.masks[at]) for at, asked in parts
    ]
    return (losses[0] + losses[1]) / 2


def train(
    schedule: Schedule, checkpoint: Path, *, stop: int | None = None
) -> tuple[SamModel, dict]:
    """Train, or go on from `checkpoint`; up to step `stop`. Returns the model and the record.

    Raises ValueError where the checkpoint is of another schedule. See `descent.run`.
    """
    model = new_model(schedule.seed).train()
    optimizer = descent.adamw(model, schedule.weight_decay, (0.9, 0.999), 1e-8)

    def take(step: int) -> float:
        loss = step_loss(model, batch(schedule, step))
        return descent.descend(model, optimizer, schedule.rate(step), loss)

    recipe, parts = asdict(schedule), {"model": model, "optimizer": optimizer}
    record = descent.run(recipe, schedule.steps, checkpoint, parts, take, every=20, stop=stop)
    return model.eval(), record


def main(argv: list[str] | None = None) -> None:
    """Train, export, measure, describe."""
    from cliptrase.shapes.card_sam import write_card  # needs this module

    flags = {"card": "only measure and write the card"}
    args = descent.options(argv, __doc__, "shapes_sam", {"steps": Schedule.steps}, **flags)
    schedule = Schedule(steps=args.steps)
    if not args.card:
        model, record = train(schedule, args.store / f"checkpoint-sam-{schedule.steps}.pt")
        export(model, args.out)
        descent.write_record(args.out, record)
    descent.report("measuring")
    write_card(args.out)
    descent.report(f"written to {args.out}")


if __name__ == "__main__":
    main()
