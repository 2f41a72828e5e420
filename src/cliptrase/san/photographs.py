"""Photographs of a prepared dataset: augmented to learn from, whole to score, as SAN does."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptrase import config
from cliptrase.data import open_dataset
from cliptrase.data.read.crop import fit_image
from cliptrase.data.read.ordered import in_order
from cliptrase.data.read.samples import Samples
from cliptrase.evaluate.targets import Target
from cliptrase.san.settings import San
from cliptrase.san.store import NO_CLASS, Batch, check_queries, classes_of
from cliptrase.shapes.stream import Stream

AUGMENT = 3  # purpose of the streams of random numbers
LONGEST = 2560  # pixels of a resized side
PADDING = 128
BRIGHTER, FACTOR, HUE = 32, (0.5, 1.5), 18 / 180  # SSD's; hue in parts of a turn


class Photographs:
    """The pictures of an experiment over a prepared dataset, and of the benchmark that scores."""

    def __init__(self, san: San, data: Path | str) -> None:
        """Raises UserError where a dataset is not prepared."""
        self.san, self.target = san, Target.of(san.run)
        self.teaching = teaching_pictures(san, data)
        self.scoring = open_dataset(san.run, data)
        self.scored = min(san.validation, len(self.scoring))

    def teach(self, rows: Sequence[int], seed: int, step: int) -> Batch:
        """Augmented pictures of a step. Raises UserError for one of more classes than queries."""

        def made(place: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            sample = self.teaching[rows[place]]
            classes = classes_of(self.target, sample.label, sample.id)
            stream = Stream(seed, AUGMENT + 16 * (step * len(rows) + place))
            shown = augmented(sample.image, classes, self.san, stream)
            check_queries(self.san, shown[1], sample.id)
            return shown

        pixels, classes = zip(*in_order(made, range(len(rows))), strict=True)
        return Batch(np.stack(pixels), list(classes), None)

    def to_score(self) -> Iterator[Batch]:
        """Whole pictures, their short side `image_size`, one by one; classes at their own size."""

        def made(index: int) -> Batch:
            sample = self.scoring[index]
            pixels = fit_image(sample.image, self.san.image_size, unit_of(self.san))
            return Batch(pixels[None], [classes_of(self.target, sample.label, sample.id)], None)

        return in_order(made, range(self.scored))


def teaching_pictures(san: San, data: Path | str) -> Samples:
    """The dataset that an experiment learns from."""
    words = [f"benchmark={san.benchmark}", f"benchmark.dataset={san.dataset}"]
    samples = open_dataset(config.resolve([*words, f"model={san.model}"]), data)
    samples.ids = samples.ids[: san.pictures]
    return samples


def unit_of(san: San) -> int:
    """Pixels by which a picture's sides can be divided, that patches of both networks fit."""
    return max(san.side.patch, san.run.model.patch * san.image_size // san.clip_size)


def augmented(
    image: Image.Image, classes: NDArray[np.uint8], san: San, stream: Stream
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture (S, S, 3) and its classes (S, S): resized to a random short side, cut at random,
    its colours changed, mirrored one time in two, padded."""
    assert san.short_sides is not None
    size, short = san.image_size, san.short_sides[stream.integer(len(san.short_sides))]
    scale = min(short / min(image.size), LONGEST / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    left, top = (stream.integer(max(0, side - size) + 1) for side in (width, height))
    cut = slice(top, top + size), slice(left, left + size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))[cut]
    labels = Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST)
    pixels, own = recoloured(pixels, stream), np.asarray(labels)[cut]
    if stream.chance(0.5):
        pixels, own = pixels[:, ::-1], own[:, ::-1]
    missing = [(0, size - side) for side in own.shape]
    padded = np.pad(pixels, (*missing, (0, 0)), constant_values=PADDING)
    return padded, np.pad(own, missing, constant_values=NO_CLASS)


def recoloured(pixels: NDArray[np.uint8], stream: Stream) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) in other colours, each change one time in two: brighter, of another
    contrast, more or less saturated, of another hue (SSD, arXiv 1512.02325)."""

    def contrast(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values * stream.uniform(*FACTOR) if stream.chance(0.5) else values

    values = pixels.astype(np.float32)
    if stream.chance(0.5):
        values = values + stream.uniform(-BRIGHTER, BRIGHTER)
    early = stream.chance(0.5)
    if early:
        values = contrast(values)
    changed = np.clip(values, 0, 255).astype(np.uint8)
    hsv = np.asarray(Image.fromarray(changed).convert("HSV")).astype(np.float32)
    if stream.chance(0.5):
        hsv[..., 1] = np.clip(hsv[..., 1] * stream.uniform(*FACTOR), 0, 255)
    if stream.chance(0.5):
        hsv[..., 0] = (hsv[..., 0] + 256 * stream.uniform(-HUE, HUE)) % 256
    rgb = Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")
    values = np.asarray(rgb).astype(np.float32)
    return np.clip(values if early else contrast(values), 0, 255).astype(np.uint8)
