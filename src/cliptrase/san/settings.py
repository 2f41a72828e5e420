"""What conf/san says: the sizes of SAN, how it is trained, and the runs of an experiment.

Imports no torch: every start of Snakemake reads it.
"""

import functools
import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from cliptrase import config
from cliptrase.config import Run
from cliptrase.config.schema import Precision
from cliptrase.config.validation import (
    Count,
    Flag,
    Frozen,
    OptionalText,
    Text,
    number,
    one_of,
    validated,
    whole,
)
from cliptrase.data.read.vocabularies import read_classes
from cliptrase.errors import UserError, counted
from cliptrase.files import sha256_text
from cliptrase.runs import code

GROUP = "san"
ARMS = ("plain", "cliptrase", "shuffled")
Positive = Annotated[float, number(0)]
NotNegative = Annotated[int, whole(0)]
SCENE = 224  # pixels a side
MOST = 255  # classes: those of a picture are kept in 8 bits, and one number is for no class
KEPT = ("model", "benchmark", "dataset", "pictures", "validation", "image_size", "clip_size")


def _ascends(numbers: Iterable[int]) -> bool:
    return all(before < after for before, after in pairwise(numbers))


class Side(Frozen):
    """The side ViT. patch: in pixels."""

    width: Count
    blocks: Count
    heads: Count
    patch: Count


class Init(Frozen):
    """How CLIPtrase's regions are had: a method of conf/method, of so many training pictures."""

    method: Text
    images: Count


class San(Frozen):
    """An experiment: a SAN, its training, its arms and seeds. conf/san/shapes.yaml says each."""

    name: Text
    suite: Text
    model: Text
    benchmark: Text
    templates: Text
    dataset: OptionalText
    pictures: Count
    validation: Count
    image_size: Count
    clip_size: Count
    short_sides: tuple[Count, ...] | None
    train_positions: Flag
    side: Side
    queries: Count
    fusion: dict[NotNegative, NotNegative] = Field(min_length=1)
    recognition: Count
    supervised: tuple[Count, ...] = Field(min_length=1)
    head_width: Count
    points: Count
    batch: Count
    iterations: Count
    checkpoints: tuple[NotNegative, ...] = Field(min_length=2)
    learning_rate: Positive
    weight_decay: Positive
    power: Positive
    clip_norm: Positive
    precision: Precision
    gpus: NotNegative
    arms: tuple[Annotated[str, one_of(*ARMS)], ...] = Field(min_length=1)
    seeds: tuple[NotNegative, ...] = Field(min_length=1)
    init: Init

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for fault in (*self._faults_of_sizes(), *self._faults_of_runs()):
            raise UserError(fault)
        return self

    def _faults_of_sizes(self) -> Iterator[str]:
        side, after = self.side, list(self.fusion.values())
        if side.width % side.heads:
            yield f"side.width={side.width}: must be a multiple of side.heads, {side.heads}"
        if self.image_size % side.patch:
            yield f"image_size={self.image_size}: must be a multiple of side.patch, {side.patch}"
        if not _ascends(self.supervised) or self.supervised[-1] != side.blocks:
            yield (
                f"supervised={list(self.supervised)}: must ascend and end with the last of the "
                f"{side.blocks} side blocks, whose masks are the result"
            )
        if not (_ascends(self.fusion) and _ascends(after)):
            yield f"fusion={self.fusion}: blocks of CLIP and side blocks must ascend"
        if max(after) > side.blocks:
            yield f"fusion={self.fusion}: there are {side.blocks} side blocks"
        if max(self.fusion) > self.recognition:
            yield (
                f"fusion={self.fusion}: block {max(self.fusion)} of CLIP is after recognition="
                f"{self.recognition}, from which on the masks are used; take earlier ones"
            )

    def _faults_of_runs(self) -> Iterator[str]:
        photographs = self.dataset is not None
        if {photographs, self.short_sides is not None, self.train_positions} != {photographs}:
            yield (
                "dataset, short_sides and train_positions: give all of them or none; photographs "
                "are augmented, so that no token of CLIP's can be kept, and scenes are not"
            )
        if not photographs and {self.image_size, self.clip_size} != {SCENE}:
            yield f"image_size and clip_size: scenes have {SCENE} pixels a side; take {SCENE}"
        if not _ascends(self.checkpoints) or {0, self.iterations} - {
            self.checkpoints[0],
            self.checkpoints[-1],
        }:
            yield (
                f"checkpoints={list(self.checkpoints)}: must ascend from 0 to iterations="
                f"{self.iterations}"
            )
        if "plain" not in self.arms or len({*self.arms}) < len(self.arms):
            yield f"arms={list(self.arms)}: must differ, and plain is what others are compared with"
        if len({*self.seeds}) < len(self.seeds):
            yield f"seeds={list(self.seeds)}: must differ"
        if self.init.images > self.pictures:
            yield f"init.images={self.init.images}: there are {self.pictures} pictures"

    @property
    def folder(self) -> Path:
        """Where its runs and its figure are."""
        return Path("results", self.suite, "san")

    @property
    def datasets(self) -> list[str]:
        """The prepared datasets that it learns from and is scored on; none for scenes."""
        return [self.dataset, self.run.benchmark.dataset] if self.dataset else []

    @property
    def fetches_weights(self) -> bool:
        """Whether CLIP's weights are downloaded first."""
        return self.run.model.kind == "open_clip" and self.run.model.path is None

    @property
    def taken(self) -> tuple[int, ...]:
        """The blocks of CLIP whose outputs are needed when CLIP is frozen: those that are fused,
        and what enters the blocks that recognise."""
        depth = self.run.model.depth
        return tuple(sorted({*self.fusion, *range(self.recognition, depth)}))

    @functools.cached_property
    def run(self) -> Run:
        """The model, the words and `init.method` as a run has them."""
        return config.resolve(
            [
                f"benchmark={self.benchmark}",
                f"model={self.model}",
                f"method={self.init.method}",
                f"benchmark.templates={self.templates}",
                "image_size=224",
            ]
        )

    def run_file(self, arm: str, seed: int) -> Path:
        """Where a run is written."""
        return self.folder / "runs" / f"{arm}-{seed}.npz"

    def recipe(self) -> str:
        """All that decides a run, but for its arm and seed, and the code."""
        run = self.run
        content = self.model_dump(mode="json", exclude={"name", "suite", "arms", "seeds"})
        content["weights"] = run.model.weights_sha256
        content["words"] = run.vocabulary.model_dump(mode="json")
        return json.dumps(content, sort_keys=True)

    @property
    def store_key(self) -> str:
        """The same for experiments that read the same pictures and tokens."""
        content = self.model_dump(mode="json", include=set(KEPT))
        return sha256_text(
            json.dumps([content, self.taken, self.run.model.weights_sha256], sort_keys=True)
        )

    @property
    def regions_key(self) -> str:
        """The same for experiments whose regions are the same."""
        method = self.run.method.model_dump(mode="json", exclude_defaults=True)
        about = [self.init.images, self.dataset, method, self.run.model.weights_sha256]
        return sha256_text(json.dumps(about, sort_keys=True))

    def store(self, data: Path | str) -> Path:
        """The folder of its pictures, labels and tokens."""
        return Path(data, "san", self.name)


def code_of(module: str) -> str:
    """The digest of a module of this package (`train`), and of all that it imports."""
    return code.digest(code.closure(f"san.{module}"))


def load(name: str) -> San:
    """The experiment of conf/san/`name`.yaml. Raises UserError naming the key, also where CLIP is
    not as deep as the experiment needs, and for a benchmark whose classes are not each one name."""
    where = f"conf/san/{name}.yaml"
    content = config.load(GROUP, name)
    san = validated(San, content, sentence=lambda problem: f"{where}: {problem.sentence()}")
    depth, patch = san.run.model.depth, san.run.model.patch
    if san.recognition >= depth:
        raise UserError(
            f"{where}: recognition={san.recognition}: model={san.model} has {depth} blocks, of "
            f"which none is left that recognises; take {depth - 1} or less, and no later output in "
            "fusion"
        )
    if san.clip_size % patch:
        raise UserError(f"{where}: clip_size={san.clip_size}: must be a multiple of {patch}")
    if fault := _fault_of_words(san.run):
        raise UserError(f"{where}: benchmark={san.benchmark}: {fault}")
    return san


def _fault_of_words(run: Run) -> str:
    words = run.vocabulary
    classes = words.classes.count
    names = sum(map(len, read_classes(words.classes.path)))
    if words.background:
        return "it scores a background, and here a class is one name; take one without"
    if names > classes:
        return f"{names} names of {counted(classes, 'class')}; take one with a name a class"
    if classes > MOST:
        return f"{classes} classes; at most {MOST} are kept apart; take one of fewer"
    return ""
