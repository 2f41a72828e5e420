"""The one number by which a recipe of the embedded CLIP is chosen, on validation scenes.

`python -m benchmarks.trial_clip FOLDER [--scenes 300]` prints it and its parts, in per cent, for a
checkpoint in FOLDER. Fixed before any trial:

- zero-shot: scenes of one object whose name is the best of all objects' (templates `shapes`);
- retrieval: R@1 among as many scenes of two to five objects, the mean of both directions;
- mIoU of `maskclip` and of `cliptrase` over the 27 classes of the benchmark `shapes` at 224 px, on
  scenes as the benchmark draws them, every second one with clutter;
- the number: the mean of these four. The mIoUs at 336 px stand beside it.

All scenes have validation seeds. Labels of pixels are read here only, to score: a training sees
scenes, captions, and for captions of crops where things were laid out. No recipe is chosen by a
score on scenes of the benchmark, nor by which method wins.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip

from cliptrase import config
from cliptrase.data.read.crop import crop_label
from cliptrase.data.read.vocabularies import read_names, vocabulary_path
from cliptrase.evaluate.targets import Target
from cliptrase.runs.metrics import class_counts, scores
from cliptrase.segmenter import Segmenter
from cliptrase.shapes import scenes
from cliptrase.shapes.card import measure

FIRST = 2_000_000  # of the validation seeds; the card takes others
METHODS = ("maskclip", "cliptrase")
SIZES = (224, 336)
USUAL = ("benchmark=shapes", "model=shapes_clip")


def validation_scenes(count: int) -> list[scenes.Scene]:
    """Scenes as the benchmark has them, with other seeds; every second one with clutter."""
    seeds = scenes.VALIDATION_SEEDS[FIRST : FIRST + count]
    return [scenes.scene(seed, clutter=index % 2 == 0) for index, seed in enumerate(seeds)]


def miou(folder: Path, method: str, size: int, made: Sequence[scenes.Scene]) -> float:
    """mIoU of a method on scenes, in per cent, as protocol `crop` counts it."""
    run = config.resolve([*USUAL, f"method={method}", f"image_size={size}"])
    target, names = Target.of(run), read_names(vocabulary_path("shapes"))
    segmenter = Segmenter(folder, method, names, image_size=size, templates="shapes", crop=True)
    matrix = np.zeros((target.classes, target.classes), dtype=np.int64)
    for scene in made:
        truth = target.truth(crop_label(scene.label, size), "a scene")
        if truth is not None:
            matrix += truth.confusion(segmenter(scene.image).labels)
    return float(scores("cliptrase", *class_counts(matrix))["mIoU"])


def parts(folder: Path, count: int) -> dict[str, float]:
    """All that the number is made of, and what stands beside it, in per cent."""
    figures = measure(open_clip.create_model(f"local-dir:{folder}").eval(), count, count)["shapes"]
    share = {name: 100 * right / asked for name, (right, asked) in figures.items()}
    made = validation_scenes(count)
    found = {f"{method} {s}": miou(folder, method, s, made) for s in SIZES for method in METHODS}
    retrieval = (share["image_to_text_1"] + share["text_to_image_1"]) / 2
    return {"zero-shot": share["objects"], "retrieval": retrieval, **found}


def number(found: dict[str, float]) -> float:
    """The one number."""
    counted = ("zero-shot", "retrieval", *(f"{method} {SIZES[0]}" for method in METHODS))
    return float(np.mean([found[name] for name in counted]))


def in_words(found: dict[str, float]) -> str:
    """All that was measured, and below it the one number."""
    measured = " · ".join(f"{name} {value:.2f}" for name, value in found.items())
    return f"{measured}\nthe number: {number(found):.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=300)
    args = parser.parse_args()
    print(in_words(parts(args.folder, args.scenes)))


if __name__ == "__main__":
    main()
