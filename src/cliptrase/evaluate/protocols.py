"""A protocol, as far as pixels go: what the model sees of a picture, which labels are scored, and
how the jobs of a pass are answered. (What a class is: targets. What a score is: metrics.)
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cliptrase.config import Run, schema
from cliptrase.config.kinds import ATTENTION, function, joined_by, vote_of
from cliptrase.data.read.crop import LONGEST, crop_box, crop_image, crop_label, whole_image
from cliptrase.evaluate.certainty import Certainties, Certainty, Watched
from cliptrase.evaluate.encoded import Propagation
from cliptrase.evaluate.graph import Graph, Original
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.keys import images_key, names_key
from cliptrase.evaluate.slide import (
    LargestProbability,
    Window,
    averaged,
    covered,
    padded,
    places,
)
from cliptrase.model import vision
from cliptrase.model.backbones import Key, Network
from cliptrase.model.load import Clip, uploaded
from cliptrase.runs.provenance import Stages
from cliptrase.segment.argmax import first_argmax
from cliptrase.segment.pamr import Refinement
from cliptrase.segment.tiles import Size

Jobs = dict[str, Job]  # by run
Asked = dict[Hashable, Job]  # by what their averaged logits depend on


@dataclass(frozen=True)
class Shown:
    """One picture as the model sees it. truths: what oracles see beside it, by target: class
    (h, w) of every pixel, −1 where it is ignored. original: for networks that see more of it."""

    pixels: NDArray[np.uint8]  # (h, w, 3)
    out_size: Size  # (H, W) of the label map that is scored
    truths: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    original: Original | None = None  # where a run asks for it


class Prediction(NamedTuple):
    """What some runs predict of B pictures, on the device.

    classes: (B, H, W) int64, of an unsupervised run the regions of each picture, whose
    `descriptors` (R, E) then say what they look like. certainty: where a ledger of errors is kept,
    and logits of pixels decide.
    """

    runs: list[str]
    classes: Tensor
    descriptors: list[Tensor] | None = None
    certainty: Certainty | None = None


class Predicted(NamedTuple):
    """The same of one run in NumPy's memory; classes (B, H, W)."""

    classes: NDArray[np.int16]
    descriptors: list[NDArray[np.float32]] | None = None
    certainty: Certainties | None = None


Maps = dict[str, Predicted]  # by run


@dataclass(frozen=True)
class Protocol(ABC):
    """`size`: the side of what the model sees at once, in pixels. `unit`: what that is."""

    size: int

    unit = "image"

    @abstractmethod
    def show(self, image: Image.Image) -> Shown:
        """What the model sees of an RGB picture. Raises UserError for one that is too long."""

    @abstractmethod
    def label(self, raw: NDArray[np.integer]) -> NDArray[np.integer]:
        """What is scored of a raw label map (H, W)."""

    def scale(self, size: Size) -> float:
        """How many scored pixels of an image of `size` a pixel is that the model sees."""
        return 1.0

    def together(self, batch_size: int) -> int:
        """How many pictures `maps` takes at most, where it takes `batch_size` units at once."""
        return batch_size

    def units(self, shown: Sequence[Shown]) -> int:
        """How many units there are in some pictures."""
        return len(shown)

    @abstractmethod
    def predictions(
        self, clip: Clip, shown: Sequence[Shown], jobs: Jobs, batch_size: int, stages: Stages
    ) -> Iterator[Prediction]:
        """What the runs predict of some pictures, those that predict alike together, with
        `batch_size` units in memory at once; the seconds are added to `stages`."""

    def maps(
        self, clip: Clip, shown: Sequence[Shown], jobs: Jobs, batch_size: int, stages: Stages
    ) -> Maps:
        """What each run predicts of some pictures, as `predictions` gives it."""
        maps: Maps = {}
        for each in self.predictions(clip, shown, jobs, batch_size, stages):
            runs, classes, descriptors, certainty = each
            here = classes.to(torch.int16).cpu().numpy()
            looks = None if descriptors is None else [each.cpu().numpy() for each in descriptors]
            sure = None if certainty is None else certainty.numpy()
            maps |= dict.fromkeys(runs, Predicted(here, looks, sure))
        return {run: maps[run] for run in jobs}

    @abstractmethod
    def count(self, clip: Clip, shown: Shown, job: Job) -> None:
        """Compute of one picture what floating-point operations are counted of, and little else:
        resizing the logits of all names, which are not, would take most of the time."""


@dataclass(frozen=True)
class Crop(Protocol):
    """The centre crop: all pictures are equally large, and a few of them are a batch.

    originals: whether a run asks for pictures before they were resized.
    """

    originals: bool = False

    def show(self, image: Image.Image) -> Shown:
        box = crop_box(image.size, self.size) if self.originals else None
        original = Original(image, box) if box else None
        size = (self.size, self.size)
        return Shown(crop_image(image, self.size), size, original=original)

    def label(self, raw: NDArray[np.integer]) -> NDArray[np.integer]:
        return crop_label(raw, self.size)

    def predictions(
        self, clip: Clip, shown: Sequence[Shown], jobs: Jobs, batch_size: int, stages: Stages
    ) -> Iterator[Prediction]:
        graph = self.graph(clip, shown, jobs)
        predicted = {run: job.predict(graph) for run, job in jobs.items()}
        described = {run: job.describe(graph) for run, job in jobs.items()}
        alike: dict[int, list[str]] = {}  # the graph gives runs that predict alike one tensor
        for run, classes in predicted.items():
            alike.setdefault(id(classes), []).append(run)
        certain = {}
        for runs in alike.values():
            classes = predicted[runs[0]]
            kept = (jobs[run].certainty(graph, classes) for run in runs if jobs[run].ledger)
            certain[runs[0]] = next(kept, None)
        stages.add(graph.seconds)
        for runs in alike.values():
            first = runs[0]
            yield Prediction(runs, predicted[first], described[first], certain[first])

    def count(self, clip: Clip, shown: Shown, job: Job) -> None:
        side = self.size // clip.patch
        job.predict(self.graph(clip, [shown], {"": job}, (side, side)))

    def graph(
        self, clip: Clip, shown: Sequence[Shown], jobs: Jobs, out_size: Size | None = None
    ) -> Graph:
        """Of some pictures, for some jobs; label maps come out as large as the crop by default."""
        pixels = clip.normalise(np.stack([picture.pixels for picture in shown]))
        originals = [each.original for each in shown if each.original is not None]
        truths, networks = _truths(clip, shown), _networks(jobs)
        out_size = out_size or (self.size, self.size)
        return Graph(clip, pixels, out_size, truths, networks=networks, originals=originals)


@dataclass(frozen=True)
class Slide(Protocol):
    """Windows over the whole picture, scored at its own size; the windows of one are a batch."""

    short_side: int
    stride: int

    unit = "window"

    def show(self, image: Image.Image) -> Shown:
        return Shown(whole_image(image, self.short_side), (image.height, image.width))

    def label(self, raw: NDArray[np.integer]) -> NDArray[np.integer]:
        return raw

    def scale(self, size: Size) -> float:
        return max(min(size) / self.short_side, max(size) / LONGEST)

    def together(self, batch_size: int) -> int:
        return 1

    def units(self, shown: Sequence[Shown]) -> int:
        sizes = (_size(picture.pixels) for picture in shown)
        return sum(len(places(size, self.size, self.stride)) for size in sizes)

    def predictions(
        self, clip: Clip, shown: Sequence[Shown], jobs: Jobs, batch_size: int, stages: Stages
    ) -> Iterator[Prediction]:
        (picture,) = shown
        pixels = self._padded(clip, picture)
        alike: dict[Hashable, Jobs] = {}
        for run, job in jobs.items():
            alike.setdefault(_averaged_key(job), {})[run] = job
        asked = {key: next(iter(some.values())) for key, some in alike.items()}
        windows = self._windows(clip, pixels, asked, batch_size, stages)
        seen = _size(picture.pixels)
        for key, some in alike.items():
            options = asked[key].method.pamr
            with stages("classify"):
                own, cut = windows.pop(key), pixels[:, : seen[0], : seen[1]]
                refine = None if options is None else Refinement.of(cut, options)
                logits = averaged(own, covered(own), seen, picture.out_size, refine)
                scales = {job.logit_scale for job in some.values() if job.threshold}
                largest, watched = LargestProbability(scales), None
                if any(job.ledger for job in some.values()):
                    watched = Watched()
                    logits = watched.watching(logits)
                names = first_argmax(largest.watching(logits))
            for run, job in some.items():
                with stages("classify"):
                    classes = job.text.classes_of(names)
                    if job.threshold:
                        unsure = largest(job.logit_scale) < job.threshold
                        classes = classes.masked_fill_(unsure, 0)
                    certainty = None
                    if watched is not None and job.ledger:
                        seen_logits, scale = watched.logits(), job.logit_scale
                        certainty = Certainty.of(seen_logits, classes, job.text, scale)
                yield Prediction([run], classes, None, certainty)

    def count(self, clip: Clip, shown: Shown, job: Job) -> None:
        self._windows(clip, self._padded(clip, shown), {"": job}, 1, Stages())

    def _padded(self, clip: Clip, shown: Shown) -> Tensor:
        """Pixels (3, H, W) of a picture that is at least one window large."""
        return padded(clip.normalise(shown.pixels[None])[0], self.size, clip.patch)

    def _windows(
        self, clip: Clip, pixels: Tensor, asked: Asked, batch_size: int, stages: Stages
    ) -> dict[Hashable, list[Window]]:
        """The windows of one picture (3, H, W), as each of the jobs sees them; of a job that sees
        it whole a single one."""
        whole = {key: job for key, job in asked.items() if _is_whole(job)}
        asked = {key: job for key, job in asked.items() if key not in whole}
        height, width = (min(self.size, side) for side in pixels.shape[-2:])
        windows = self._whole(clip, pixels, whole, stages) if whole else {}
        if not asked:
            return windows
        windows |= {key: [] for key in asked}
        joining = {  # methods whose logits are made of all windows together
            images_key(job.method): (job.method, join)
            for job in asked.values()
            if (join := joined_by(job.method))
        }
        parts: dict[Hashable, list[Propagation]] = {key: [] for key in joining}
        corners = places(_size(pixels[0]), self.size, self.stride)
        for start in range(0, len(corners), batch_size):
            some = corners[start : start + batch_size]
            cut = [pixels[:, y : y + height, x : x + width] for y, x in some]
            graph = Graph(clip, torch.stack(cut), networks=_networks(asked))
            for images, (method, _) in joining.items():
                parts[images].append(graph.propagation(method))
            for key, job in asked.items():
                if images_key(job.method) in joining:
                    continue
                logits = graph.logits(job.method, job.text, job.text_key, 1.0)
                regions = graph.regions(job.method) if vote_of(job.method) != "none" else None
                windows[key] += Window.each(some, (height, width), logits, regions)
            stages.add(graph.seconds)
        with stages("classify"):
            joined: dict[Hashable, Propagation] = {
                images: function(join)(parts[images], corners, (height, width))
                for images, (_, join) in joining.items()
            }
            for key, job in asked.items():
                if (propagation := joined.get(images_key(job.method))) is not None:
                    logits = propagation.logits(job.text, 1.0)
                    windows[key] += Window.each(corners, (height, width), logits, None)
        return windows

    def _whole(
        self, clip: Clip, pixels: Tensor, asked: Asked, stages: Stages
    ) -> dict[Hashable, list[Window]]:
        """A window that is the whole picture (3, H, W), as each of the jobs sees it, whose sides
        are padded to whole patches: all its windows are one batch, whatever the batch size (some 30
        MB a window of ViT-B/16 at 224), on one grid of patches."""
        patch = clip.patch
        pixels = padded(pixels, max(pixels.shape) + 1, patch)  # every side, however long
        size = _size(pixels[0])
        height, width = (min(self.size, side) for side in size)
        corners = places(size, self.size, self.stride)
        cut = torch.stack([pixels[:, y : y + height, x : x + width] for y, x in corners])
        grid = size[0] // patch, size[1] // patch
        picture = clip.denormalise(pixels[None])[0]
        lie = vision.Windows([(y // patch, x // patch) for y, x in corners], grid, picture)
        graph = Graph(clip, cut, networks=_networks(asked), windows=lie)
        windows: dict[Hashable, list[Window]] = {}
        for key, job in asked.items():
            logits = graph.logits(job.method, job.text, job.text_key, 1.0)
            windows[key] = Window.each([(0, 0)], size, logits, None)
        stages.add(graph.seconds)
        return windows


def protocol_of(run: Run, originals: bool = False) -> Protocol:
    """The protocol of a resolved run. originals: whether pictures are kept as they were."""
    size, protocol = run.image_size, run.protocol
    if isinstance(protocol, schema.Slide):
        return Slide(size, protocol.short_side, protocol.stride)
    return Crop(size, originals)


def _networks(jobs: Mapping[Any, Job]) -> dict[Key, Network]:
    """The networks beside CLIP of some jobs."""
    return {key: each for job in jobs.values() for key, each in job.networks.items()}


def _truths(clip: Clip, shown: Sequence[Shown]) -> dict[str, Tensor]:
    """What oracles see of some pictures, (B, h, w) by target, on the device of `clip`."""
    return {
        target: uploaded(np.stack([picture.truths[target] for picture in shown]), clip.device)
        for target in shown[0].truths
    }


def _is_whole(job: Job) -> bool:
    """Whether a job takes all windows of a picture at once."""
    return ATTENTION[job.method.attention.kind].whole


def _size(picture: Tensor | NDArray[Any]) -> Size:
    return picture.shape[0], picture.shape[1]


def _averaged_key(job: Job) -> Hashable:
    """The same for jobs whose logits, averaged over the windows, are the same."""
    method, voting = job.method, vote_of(job.method) != "none"
    regions = (method.regions, method.sam, method.dino) if voting else None
    return names_key(method, job.text, job.text_key, 1.0), regions
