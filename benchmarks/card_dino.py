"""Measure the embedded DINO on held-out scenes, and write its card (README.md, loss.svg).

Labels are used here only, to score; the benchmark's own scenes are never looked at.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from scipy.stats import t as student
from torch import Tensor

from cliptrase.config.settings import dbscan_defaults
from cliptrase.files import write_text
from cliptrase.model.affinity import squared_distances
from cliptrase.publish.figures.attention import patch_classes, ranking
from cliptrase.segment.clustering import dbscan, neighbours
from cliptrase.segment.correlation import less_cls
from cliptrase.shapes import scenes
from cliptrase.shapes.card import curve, wilson
from cliptrase.shapes.train_dino import (
    HELD_OUT,
    MEAN,
    MODEL,
    OUT,
    PATCH,
    SIZE,
    STD,
    Network,
    held_out,
    pixels,
)

MANY = 200  # scenes
CLUSTERS = range(2, 41)

Figures = dict[str, Any]


def write_card(folder: Path, many: int = MANY) -> Figures:
    """Measure the network in `folder`; put figures, curve and card beside it.

    Reads and extends training.json. Returns the figures (see `measure`): "trained"; "untrained", of
    the same network before any training; "colour", of `mean_colours`.
    """
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    trained = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    torch.manual_seed(record["recipe"]["seed"])
    untrained = Network(record["recipe"]["prototypes"]).vit.eval()
    made = held_out(many)
    figures = {
        "trained": measure(trained.forward_features, made),
        "untrained": measure(untrained.forward_features, made),
        "colour": measure(mean_colours, made),
    }
    record["figures"] = figures
    for name, text in (
        ("training.json", json.dumps(record) + "\n"),
        ("loss.svg", curve(record["losses"])),
        ("README.md", card(record)),
    ):
        write_text(folder / name, text)
    return figures


def mean_colours(shown: Tensor) -> Tensor:
    """The mean colour of every patch in place of its token, of the picture in place of [CLS]."""
    patches = F.avg_pool2d(shown, PATCH).flatten(2).transpose(1, 2)
    return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)


@torch.no_grad()
def measure(encode: Callable[[Tensor], Tensor], made: list[scenes.Scene]) -> Figures:
    """How well tokens tell what belongs together, scene by scene.

    `encode` gives tokens (B, 1 + N, C), [CLS] first, of what `pixels` gives.

    "ranking": the mean `ranking` of a scene's patches by token cosines. "clusters": how many DBSCAN
    finds in the cosines less [CLS]'s, at the default eps and min_samples.
    """
    areas, clusters = [], []
    eps, min_samples = dbscan_defaults((SIZE // PATCH) ** 2)
    for start in range(0, len(made), 20):
        some = made[start : start + 20]
        tokens = F.normalize(encode(pixels(some)), dim=-1)
        w = tokens @ tokens.transpose(1, 2)
        labels = dbscan(neighbours(squared_distances(less_cls(w)), eps), min_samples)
        clusters += (labels.amax(dim=1) + 1).tolist()
        for cosines, scene in zip(w[:, 1:, 1:].double().numpy(), some, strict=True):
            classes = patch_classes(scene.label.astype(np.int64), PATCH)
            areas.append(round(float(ranking(cosines, classes).mean()), 4))
    return {"ranking": areas, "clusters": clusters}


def card(record: dict[str, Any]) -> str:
    """The model card, from the record of the training and the figures measured.

    A "note" in the record, written by hand, is what a reader should know of that run.
    """
    recipe, figures = record["recipe"], record["figures"]
    rows = "\n".join(
        f"| {title} | " + " | ".join(cell(each) for each in figures.values()) + " |"
        for title, cell in (
            ("ranking of patches", ranking_cell),
            ("scenes with 2 to 40 clusters, %", cluster_cell),
            ("clusters, median (least to most)", spread_cell),
        )
    )
    keys = "steps", "batch", "prototypes", "warm_up", "falling", "momentum", "seed"
    steps, batch, prototypes, warm_up, falling, momentum, seed = (recipe[key] for key in keys)
    taught, teaches = recipe["student_temperature"], recipe["teacher_temperature"]
    rate, decay, minutes = recipe["learning_rate"], recipe["weight_decay"], record["seconds"] / 60
    many = len(figures["trained"]["clusters"])
    note = f"\n- {record['note']}" if "note" in record else ""
    of_cls, of_patches = (record["entropy"][name] for name in ("cls", "patches"))
    return f"""# shapes_dino: the embedded DINO

A small ViT (timm's own class) that has learnt the made-up world of `cliptrase.shapes` from its
pictures alone: no caption, no label. It stands in for DINOv2 in the demo and the tests, as a second
network that clusters patches. It knows nothing of photographs.

| | |
|---|---|
| Network | ViT, {MODEL["depth"]} blocks, width {MODEL["embed_dim"]}, {MODEL["num_heads"]} heads, \
patch {PATCH}, {SIZE} px ({SIZE // PATCH} × {SIZE // PATCH}), [CLS], no registers |
| Weights | the teacher's, fp16 |
| Pixels | mean {MEAN}, standard deviation {STD} |

Load it with `timm.create_model("local-dir:assets/shapes_dino", pretrained=True)`.

## Training

- Data: {recipe["scenes"]:,} scenes of `cliptrase.shapes` (seeds 0 to {recipe["scenes"] - 1:,}), two
  of three with clutter, one of five with a single object, drawn at random at every step.
- Two views of each at {recipe["side"]} px: a crop of 40 to 100 % of the area, mirrored or not;
  brightness and contrast ±0.3, saturation ±0.2, hue ±0.02, one of ten grey, three of ten blurred.
  Every second view has a block of 10 to 50 % of its patches masked for the student.
- Objective: DINO's cross-entropy between the [CLS] tokens of the two views, plus iBOT's between
  teacher and student on the masked patches of the same view; {steps:,} steps of {batch} scenes
  ({2 * steps * batch:,} views). One head for both: 192, 512, 512, 64, and {prototypes} prototypes.
  Temperatures {taught:g} (student) and {teaches:g} (teacher), teacher momentum {momentum:g}.
  Sinkhorn-Knopp evens out the teacher's output (3 rounds, [CLS] and patches apart), in place of
  DINO's centres: with these a short training left some 20 prototypes in use.
- AdamW, learning rate {rate:g} (warm-up {warm_up} steps, then constant; half a cosine to 0 in the
  last {falling}), weight decay {decay:g} on matrices, gradients clipped at norm 1, bf16 autocast.
- Seed {seed}; {minutes:.0f} minutes on one CPU thread, scenes not counted. A run on the same
  machine and libraries repeats bit for bit, interrupted or not; another CPU may give other
  weights.{note}

![Training loss](loss.svg)

The loss is no measure of quality: the teacher's own output moves as it learns.

## Figures

With 95 % intervals, on {many} held-out scenes of the validation seeds at {SIZE} px, every second
one with clutter; beside them the same network before any training, and the mean colour of every
patch in place of its token.

| | trained | untrained | mean colour |
|---|---|---|---|
{rows}

The ranking is the area under the ROC curve, by cosines of tokens after the final norm: how well a
patch puts the other patches of its own class before all others (0.5 by chance; Student's t over
scenes). Clusters are DBSCAN's of the cosines less [CLS]'s, at the default eps and min_samples
(Wilson). The mean teacher output of {HELD_OUT} of these scenes has an entropy of {of_cls:.2f} nats
for [CLS] and {of_patches:.2f} for patches, of {np.log(prototypes):.2f} possible.

The benchmark's own scenes have other seeds; nothing here has seen them.

## Again

    make train-shapes-dino           # everything; goes on where it was interrupted
    python -m benchmarks.card_dino   # only the figures and this file
"""


def ranking_cell(figures: Figures) -> str:
    """The mean ranking with its 95 % interval (Student's t)."""
    areas = figures["ranking"]
    mean, error = np.mean(areas), np.std(areas, ddof=1) / len(areas) ** 0.5
    low, high = student.interval(0.95, len(areas) - 1, mean, error)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def cluster_cell(figures: Figures) -> str:
    """How often the number of clusters is in CLUSTERS, in percent, with its 95 % interval."""
    right = sum(number in CLUSTERS for number in figures["clusters"])
    low, high = wilson(right, len(figures["clusters"]))
    share = right / len(figures["clusters"])
    return f"{100 * share:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def spread_cell(figures: Figures) -> str:
    """The median number of clusters, the least and the most."""
    numbers = figures["clusters"]
    return f"{np.median(numbers):g} ({min(numbers)} to {max(numbers)})"


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_card(OUT)
