"""Pictures and words in, a label map out: the graph of a pass on one picture at a time."""

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from cliptrase import config
from cliptrase.config import resolve_settings
from cliptrase.config.method import Method
from cliptrase.config.schema import Model
from cliptrase.data.read.crop import check_aspect, crop_box, crop_image, fit_image, nearest_indices
from cliptrase.data.read.images import read_image
from cliptrase.data.read.vocabularies import (
    BACKGROUND,
    ONLY_CLASS,
    check_apart,
    check_labels,
    owned_names,
    read_templates,
    split_classes,
    template_path,
    texts,
)
from cliptrase.errors import UserError
from cliptrase.evaluate.device import computing_on, fitting, single_threaded_pool
from cliptrase.evaluate.encoded import Encoded, Text
from cliptrase.evaluate.graph import Graph, Original
from cliptrase.files import local_path
from cliptrase.machine import cores
from cliptrase.model.backbones import load_networks
from cliptrase.model.load import load_clip
from cliptrase.model.text import check_lengths, text_features, unseen_words
from cliptrase.publish.figures.quantities import Quantities, quantities
from cliptrase.publish.figures.quantities import Words as Asked

log = logging.getLogger(__name__)

Picture = Image.Image | np.ndarray | str | Path


@dataclass(frozen=True)
class Segmentation:
    """A picture's label map. `names[labels]` names every pixel."""

    labels: np.ndarray  # (H, W) uint16, indices into names
    names: tuple[str, ...]  # the classes, then "background" where background words were given
    regions: np.ndarray  # (H, W) int32, the cluster of each pixel; -1: no cluster in the picture
    background: int | None  # the label of all background words: the index after the last class
    network_size: tuple[int, int]  # (height, width) in pixels of what the model saw
    method: Method  # as computed: eps and min_samples of this very picture


class Seen(NamedTuple):
    """A picture as the model sees it. method: with eps and min_samples of this very picture."""

    size: tuple[int, int]  # (H, W) of the picture, upright, or of its crop
    pixels: np.ndarray  # (h, w, 3) uint8, sides multiples of the patch
    method: Method
    graph: Graph


class Words(NamedTuple):
    """What a picture is asked for."""

    classes: tuple[tuple[str, ...], ...]  # the names of each class
    background: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names that a label map has."""
        names = tuple(own[0] for own in self.classes)
        return (*names, BACKGROUND) if self.background else names

    @property
    def background_label(self) -> int | None:
        """Which of them is the background's, if there are words for it."""
        return len(self.classes) if self.background else None


@dataclass(frozen=True)
class EncodedPicture:
    """A picture whose features and regions are computed; `Segmenter.classify` takes it often."""

    encoded: Encoded
    method: Method
    regions: np.ndarray  # (H, W) int32
    size: tuple[int, int]  # (H, W) of the label map
    network_size: tuple[int, int]


class Segmenter:
    """Segments pictures of any size with any words.

    A whole picture is resized so that its short side is `image_size` (the aspect is kept, both
    sides rounded to whole patches); patches are clustered, labelled and put to the vote at that
    size, and the labels brought to the picture's own size by nearest neighbour. eps and min_samples
    follow the number of patches unless `overrides` sets them. With `crop=True` the label map is
    that of the image_size × image_size centre crop, as protocol `crop` sees it: the same labels
    that `python -m cliptrase.evaluate` scores.

    model      a name of conf/model (`vit_b16`, `shapes_clip`, …), or `local-dir:DIR` or a Path for
               a folder that open_clip reads
    method     a name of conf/method
    classes    the words, one a class, or several with `|` between them: "sofa|couch"; the first
               names the class. May be left out when `classify` gets them
    background words for everything else; they share one label, the one after the last class
    image_size pixels, a multiple of the model's patch; None: the size the model was trained at
    device     auto, cpu, cuda or cuda:N
    templates  a shipped list of prompt templates, or a text file
    overrides  `key=value` as on the command line: `method.regions.eps=0.8`, `model.path=DIR`, …

    The [CLS] factor that the released code uses on VOC20 is off unless overrides has
    `method.cls_logits=true`. Raises UserError for anything that a user can get wrong.
    """

    def __init__(
        self,
        model: str | Path = "vit_b16",
        method: str = "cliptrase",
        classes: Sequence[str] | None = None,
        background: Sequence[str] | None = None,
        *,
        image_size: int | None = None,
        device: str = "auto",
        templates: str | Path = "imagenet80",
        crop: bool = False,
        overrides: Sequence[str] = (),
    ):
        self.crop = crop
        if not isinstance(templates, str | Path):
            raise UserError("templates: give a shipped list's name or a text file, a prompt a line")
        self._templates = read_templates(template_path(templates))
        self._words = _checked(classes, background)
        overrides = texts(overrides, "overrides")
        chosen = config.picture_overrides(model, method, device, image_size, overrides)
        settings = resolve_settings(chosen)
        with computing_on(settings.device) as chosen_device:
            self._clip = load_clip(settings.model, chosen_device)
            self._networks = load_networks(settings.method.networks, chosen_device)
        if image_size is None:
            chosen.append(f"image_size={self._clip.visual.image_size[0]}")
            settings = resolve_settings(chosen)
        self._overrides = chosen
        self.model: Model = settings.model
        self.image_size: int = settings.image_size
        self._logit_scale: float = settings.protocol.logit_scale
        self._texts: dict[Words, Text] = {}
        self._warned: set[str] = set()
        if self._words is not None:  # before any picture is encoded
            check_lengths(self._clip, owned_names(*self._words)[0], self._templates)

    def __call__(self, image: Picture) -> Segmentation:
        """The label map of a PIL picture, a (H, W[, 3|4]) array of uint8, or a file."""
        return self.classify(self.encode(image))

    def seen(self, image: Picture) -> Image.Image:
        """The picture that a label map lies over: upright RGB, its centre crop with `crop`."""
        picture = _upright(image)
        return Image.fromarray(crop_image(picture, self.image_size)) if self.crop else picture

    def _originals(self, image: Picture, method: Method) -> list[Original]:
        """The picture before it is resized for the model, where the method asks for it."""
        if not method.sees_original:
            return []
        picture = _upright(image)
        return [Original(picture, self._box(picture.size))]

    @torch.inference_mode()
    def encode(self, image: Picture) -> EncodedPicture:
        """Everything that does not depend on the words: features, correlation, regions."""
        with self._computing():
            size, pixels, method, graph = self._see(image)
            encoded = graph.encode(method)
            regions = np.full(pixels.shape[:2], -1, np.int32)  # where the method makes none
            if encoded.regions is not None:
                regions = encoded.regions[0].cpu().numpy().astype(np.int32)
            found = _nearest(regions, size)
            return EncodedPicture(encoded, method, found, size, pixels.shape[:2])

    def _see(self, image: Picture) -> Seen:
        picture = self.seen(image)
        check_aspect(picture.size, whole=True)
        pixels = fit_image(picture, self.image_size, self.model.patch)  # leaves a crop as it is
        # eps and min_samples for this many patches, where they are `auto`
        method = resolve_settings(self._overrides, pixels.shape[:2]).method
        seen = self._clip.normalise(pixels[None])
        originals = self._originals(image, method)
        graph = Graph(self._clip, seen, networks=self._networks, originals=originals)
        return Seen((picture.height, picture.width), pixels, method, graph)

    @property
    def depth(self) -> int:
        """How many blocks the image tower has."""
        return self._clip.depth

    def explain(
        self,
        image: Picture,
        name: str = "picture",
        *,
        patch: tuple[int, int] | None = None,
        at: tuple[int, int] | None = None,
    ) -> Quantities:
        """What the method makes of a picture on its way: attention, correlation, clusters, regions,
        and label maps where the Segmenter has words.

        patch: row and column of the patch that is looked at, from 0; or at: x, y, the pixel of the
        upright picture that it holds. By default a patch a little above and left of the middle, as
        in the paper. Raises UserError for one outside what the model sees.
        """
        with self._computing():
            _, pixels, method, graph = self._see(image)
            words, own = None, self._words
            if own is not None:
                words = Asked(self._text(own), own.names, own.background_label)
            box = self._box(_upright(image).size)
            place = patch if at is None else _patch_at(at, box, graph.grid)
            return quantities(
                graph,
                method,
                name,
                pixels,
                words=words,
                logit_scale=self._logit_scale,
                patch=None if place is None else _number(place, graph.grid),
            )

    def _box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of what is seen of a picture of `size` (width, height)."""
        whole = (0.0, 0.0, float(size[0]), float(size[1]))
        return crop_box(size, self.image_size) if self.crop else whole

    @torch.inference_mode()
    def classify(
        self,
        picture: EncodedPicture,
        classes: Sequence[str] | None = None,
        background: Sequence[str] | None = None,
    ) -> Segmentation:
        """Label an encoded picture, with the Segmenter's own words unless `classes` are given."""
        if not isinstance(picture, EncodedPicture):
            raise UserError("classify takes what encode(picture) returned; call segmenter(picture)")
        words = _checked(classes, background) or self._words
        if words is None:
            raise UserError("no classes: give Segmenter(classes=[…]) or classify(picture, classes)")
        text = self._text(words)
        with self._computing():
            predicted = picture.encoded.classify(text, self._logit_scale)
            labels = _nearest(predicted[0].cpu().numpy().astype(np.uint16), picture.size)
        return Segmentation(
            labels=labels,
            names=words.names,
            regions=picture.regions,
            background=words.background_label,
            network_size=picture.network_size,
            method=picture.method,
        )

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """One thread on the CPU, full precision on a GPU: the same numbers as a pass, anywhere."""
        device = self._clip.device
        with (
            fitting("the picture", device, "image_size (--image-size)"),
            computing_on(str(device)),
            single_threaded_pool(1),
        ):
            yield

    def _text(self, words: Words) -> Text:
        """The text features of the words, encoded once for each list of them."""
        if words not in self._texts:
            names, owner = owned_names(*words)
            features = text_features(self._clip, names, self._templates, workers=cores())
            if len(set(owner)) == 1:
                log.warning("classes: " + ONLY_CLASS, "|".join(names))
            unseen = set(unseen_words(self._clip, names)) - self._warned
            if unseen:
                self._warned |= unseen
                log.warning(
                    "model %s has never seen %s: where such a word wins, it means nothing",
                    self.model.label,
                    ", ".join(map(repr, sorted(unseen))),
                )
            owners = torch.tensor(owner, device=features.device)
            self._texts[words] = Text(features, owners, words.background_label)
        return self._texts[words]


def _patch_at(
    at: tuple[int, int], box: tuple[float, float, float, float], grid: tuple[int, int]
) -> tuple[int, int]:
    """Row and column of the patch that holds the pixel x, y of a picture, of which the model sees
    the `box` (left, top, right, bottom)."""
    (x, y), (left, top, right, bottom) = (side + 0.5 for side in at), box
    if not (left <= x < right and top <= y < bottom):
        first, last = (math.ceil(left - 0.5), math.ceil(top - 0.5)), (right - 0.5, bottom - 0.5)
        (x_last, y_last) = (math.ceil(each) - 1 for each in last)
        seen = f"x {first[0]} to {x_last}, y {first[1]} to {y_last}"
        raise UserError(f"at (--at) {at[0]},{at[1]}: outside what the model sees, {seen}")
    return int((y - top) / (bottom - top) * grid[0]), int((x - left) / (right - left) * grid[1])


def _number(place: tuple[int, int], grid: tuple[int, int]) -> int:
    """The number of the patch at a row and column of a grid, row by row."""
    (row, column), (rows, columns) = place, grid
    if not (0 <= row < rows and 0 <= column < columns):
        there = f"rows 0 to {rows - 1}, columns 0 to {columns - 1}"
        raise UserError(f"patch (--patch) {row},{column}: the model sees patches of {there}")
    return row * columns + column


def _upright(image: Picture) -> Image.Image:
    """A picture as upright RGB. Raises UserError for what is none."""
    _check_picture(image)
    return read_image(local_path(image) if isinstance(image, str) else image)


def _check_picture(image: object) -> None:
    """Raise UserError for what is neither a picture nor a file, open or named, and for a picture
    without pixels."""
    known = isinstance(image, str | os.PathLike | bytes | Image.Image | np.ndarray)
    if not known and not hasattr(image, "read"):
        raise UserError(
            f"a picture of type {type(image).__name__}: give one picture a call, as a PIL picture, "
            "a file or a (H, W, 3) array of uint8; of a tensor of 0 to 1, "
            "(255 * tensor).byte().permute(1, 2, 0).cpu().numpy()"
        )
    if isinstance(image, Image.Image) and not all(image.size):
        raise UserError(f"a picture of {image.width} × {image.height}: it has no pixels")


def _checked(classes: Sequence[str] | None, background: Sequence[str] | None) -> Words | None:
    """Both lists, split at `|`; None for none.

    Raises UserError for what is no list of texts, an empty list or name, a name that two classes
    own, or a class and the background, a class named as the label that background words share, and
    background words without classes.
    """
    if classes is None:
        if background is not None:
            raise UserError("background: words without classes; give the classes beside them")
        return None
    split = split_classes(texts(classes, "classes"), "classes", unique=True, entry="entry")
    words = list[list[str]]()
    if background is not None:
        words = split_classes(texts(background, "background"), "background", entry="entry")
        check_apart(split, words, "background")
    check_labels(split, background, "classes")
    return Words(tuple(map(tuple, split)), tuple(name for own in words for name in own))


def _nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) → `size` = (H, W) by the nearest pixel centre, as PIL's NEAREST."""
    rows, columns = map(nearest_indices, array.shape, size)
    return array[rows[:, None], columns]
