"""Measure the embedded SAM on held-out scenes, and write its card (README.md, loss.svg).

Only validation seeds are used: the benchmark's own scenes are never looked at here.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from transformers import SamModel

from cliptrase.shapes import scenes
from cliptrase.shapes.card import write_record
from cliptrase.shapes.sam import SIZE, decode, load, to_pixels
from cliptrase.shapes.stream import Stream
from cliptrase.shapes.train_sam import draw_masks, grid_points, iou, prompts, scattered_points

SCENES, MASKS = 200, 4
# A prompt: (positive, negative) points, or the patches a side of a grid without mistakes.
PROMPTS: dict[str, tuple[int, int] | int] = {
    "1 point": (1, 0),
    "4 + 4 points": (4, 4),
    "14 × 14 patch centres": 14,
    "21 × 21 patch centres": 21,
}
FIGURES = SINGLE, BEST, ERROR = (
    "mask token 0",
    "best of three by predicted IoU",
    "error of predicted IoU",
)

Figures = dict[str, dict[str, list[float]]]  # [mean, low, high] by prompt and figure


def write_card(folder: Path, count: int = SCENES) -> Figures:
    """Measure the network in `folder`; put figures, curve and card beside it.

    Reads and extends training.json. Returns the figures (see `measure`).
    """
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    record["figures"] = measure(load(folder), count) | {"scenes": count}
    write_record(folder, record, card(record))
    return record["figures"]


@torch.no_grad()
def measure(model: SamModel, count: int, first: int = 2_000_000) -> Figures:
    """Mean IoU over held-out scenes, of four masks each, for every prompt.

    With 95 % intervals: a bootstrap over the scenes, 1,000 resamples. Every second scene carries
    clutter; masks and points come from the scene's seed.
    """
    values: dict[str, dict[str, list[float]]] = {
        name: {SINGLE: [], BEST: [], ERROR: []} for name in PROMPTS
    }
    for index in range(count):
        seed = scenes.VALIDATION_SEEDS[first + index]
        scene, stream = scenes.scene(seed, index % 2 == 0), Stream(seed, 1000)
        masks = draw_masks(scene.label, MASKS, stream)
        truth = torch.from_numpy(masks)
        embeddings = model.get_image_embeddings(to_pixels(scene.image[None]))
        for name, prompt in PROMPTS.items():
            drawn = [
                grid_points(mask, prompt, 0.0, 0.0, stream)
                if isinstance(prompt, int)
                else scattered_points(mask, *prompt, stream)
                for mask in masks
            ]
            logits, predicted = decode(model, embeddings, *prompts(drawn, MASKS))
            shown = F.interpolate(logits[0], (SIZE, SIZE), mode="bilinear") > 0
            reached = iou(shown, truth[:, None])  # (masks, 4)
            best = 1 + predicted[0, :, 1:].argmax(dim=1, keepdim=True)
            gap = (predicted[0, :, 0] - reached[:, 0]).abs()
            for key, each in (
                (SINGLE, reached[:, 0]), (BEST, reached.gather(1, best)), (ERROR, gap)
            ):  # fmt: skip
                values[name][key].append(float(each.mean()))
    return {
        name: {key: mean_and_interval(each) for key, each in columns.items()}
        for name, columns in values.items()
    }


def mean_and_interval(values: list[float]) -> list[float]:
    """Mean, and both ends of its 95 % interval by 1,000 resamples (BCa)."""
    ends = stats.bootstrap(
        (values,), np.mean, n_resamples=1000, rng=np.random.default_rng(0)
    ).confidence_interval
    return [float(np.mean(values)), float(ends.low), float(ends.high)]


def _cell(figure: list[float]) -> str:
    return "{:.3f} ({:.3f} to {:.3f})".format(*figure)


def card(record: dict[str, Any]) -> str:
    """The model card, from the record of the training and the figures measured.

    A "note" in the record, written by hand, is what a reader should know of that run.
    """
    recipe, figures = record["recipe"], record["figures"]
    rows = "\n".join(
        f"| {name} | "
        + " | ".join(_cell(figures[name][key]) for key in (SINGLE, BEST, ERROR))
        + " |"
        for name in PROMPTS
    )
    seen = recipe["steps"] * recipe["scenes"]
    note = f"\n- {record['note']}" if "note" in record else ""
    return f"""# shapes_sam: the embedded SAM

A small SAM (transformers' own class) that has learnt to cut out the things and the backgrounds of
a made-up world from points. It stands in for SAM wherever the embedded CLIP stands in for CLIP: in
the demo and the tests. It knows nothing of photographs.

| | |
|---|---|
| Image encoder | ViT, 4 blocks, width 128, 4 heads, patch 16, 224 px, windows of 7 × 7 in two |
| Prompt encoder | points; boxes and masks as prompts were never trained |
| Mask decoder | 2 layers, width 128, 4 heads; masks of 56 × 56; one mask, or three |
| Weights | 1,845,824 parameters in fp16, loaded as fp32 |

Load it with `transformers.SamModel.from_pretrained("assets/shapes_sam")`. Pixels are normalised as
SAM's are; a picture is resized to 224 pixels on its long side.

## Training

- Data: {seen:,} scenes of `cliptrase.shapes` (seeds 0 to {seen - 1:,}), two of three with clutter,
  one of five with a single object, each seen once. The masks are those of the label maps, without
  their names: of each scene {recipe["masks"]} masks of 200 pixels or more, one time in two one
  connected part of a label. The embedded CLIP sees no label; this network sees masks, as the real
  SAM has seen 1.1 billion of them.
- Prompts: for half of the scenes 1 to 8 points in the mask and 0 to 8 outside; for half the centres
  of 14 × 14 patches, in one step of four of 21 × 21, {recipe["dropped"]:.0%} left out,
  {recipe["flipped"]:.0%} of the mask's points labelled wrong and about as many of the others.
- Objective: 20 · focal loss + dice loss of the single mask and of the best of the other three, and
  squared errors of the predicted IoU. SAM trains the three masks on single points only; here they
  learn from every prompt.
- Start: random, with SAM's Fourier frequencies, which are not learnt. Query and key weights of the
  decoder start equal, so that a token attends to what is like it and near it.
- {recipe["steps"]:,} steps of {recipe["scenes"]} scenes; AdamW, learning rate
  {recipe["learning_rate"]:g} (warm-up {recipe["warm_up"]} steps, then half a cosine to 0, by
  steps), weight decay {recipe["weight_decay"]:g} on matrices, gradients clipped at norm 1, fp32,
  horizontal flips, seed {recipe["seed"]}.
- {record["seconds"] / 60:.0f} minutes of wall time on {record["threads"]} CPU thread(s). With one
  thread, a run on the same machine and libraries repeats bit for bit, interrupted or not; another
  CPU may give other weights.{note}

![Training loss](loss.svg)

## Figures

Mean IoU at 224 pixels, with 95 % intervals (bootstrap over scenes), on {figures["scenes"]} held-out
scenes of the validation seeds with {MASKS} masks each, every second scene with clutter. Points are
drawn at random or are all patch centres, without mistakes. The last column is the mean distance of
the predicted IoU of mask token 0 from the true one.

| prompt | {" | ".join(FIGURES)} |
|---|---|---|---|
{rows}

The benchmark's own scenes have other seeds; nothing here has seen them.

## Again

    make train-shapes-sam                         # everything; goes on where it was interrupted
    python -m cliptrase.shapes.train_sam --card   # only the figures and this file
"""
