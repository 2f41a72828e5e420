"""What conf/san says: the sizes of SAN, how it is trained, and the runs of an experiment.

Imports no torch: every start of Snakemake reads it.
"""

import functools
import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from cliptrase import config
from cliptrase.config import Run
from cliptrase.config.method import Count, Flag
from cliptrase.config.schema import Precision
from cliptrase.config.validation import (
    Frozen,
    OptionalText,
    Text,
    number,
    one_of,
    validated,
    whole,
)
from cliptrase.errors import UserError
from cliptrase.files import sha256_text

GROUP = "san"
ARMS = ("plain", "cliptrase", "shuffled")
Positive = Annotated[float, number(0)]
NotNegative = Annotated[int, whole(0)]
KEPT = ("model", "benchmark", "dataset", "pictures", "validation", "image_size", "clip_size")


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
    checkpoints: tuple[NotNegative, ...]
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
        side, last = self.side, self.iterations
        for name, size, by in (
            ("side.width", side.width, side.heads),
            ("image_size", self.image_size, side.patch),
        ):
            if size % by:
                raise UserError(f"{name}={size}: must be a multiple of {by}")
        if self.supervised != tuple(sorted(set(self.supervised))) or (
            self.supervised[-1] != side.blocks
        ):
            raise UserError(
                f"supervised={list(self.supervised)}: must ascend and end with the last of the "
                f"{side.blocks} side blocks, whose masks are the result"
            )
        outputs, after = list(self.fusion), list(self.fusion.values())
        if outputs != sorted(set(outputs)) or after != sorted(set(after)):
            raise UserError(
                f"fusion={self.fusion}: both blocks of CLIP and side blocks must ascend"
            )
        if after[-1] > side.blocks:
            raise UserError(f"fusion={self.fusion}: there are {side.blocks} side blocks")
        if outputs[-1] > self.recognition:
            raise UserError(
                f"fusion={self.fusion}: block {outputs[-1]} of CLIP is after recognition="
                f"{self.recognition}, from which on the masks are used; take earlier ones"
            )
        ascending = self.checkpoints == tuple(sorted(set(self.checkpoints)))
        if not ascending or self.checkpoints[:1] != (0,) or self.checkpoints[-1] != last:
            raise UserError(
                f"checkpoints={list(self.checkpoints)}: must ascend from 0 to iterations={last}"
            )
        if self.short_sides is None and self.image_size != self.clip_size:
            raise UserError(
                f"clip_size={self.clip_size}: whole pictures are read as they are; take "
                f"image_size, {self.image_size}, or augment with short_sides"
            )
        if self.train_positions is False and self.short_sides is not None:
            raise UserError(
                "short_sides: CLIP's tokens of augmented pictures differ each time and cannot be "
                "kept; take train_positions: true"
            )
        if self.init.images > self.pictures:
            raise UserError(f"init.images={self.init.images}: there are {self.pictures} pictures")
        return self

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

    def recipe(self, *without: str) -> str:
        """All that decides a run, but for its arm and seed and the keys in `without`."""
        left_out = {"name", "suite", "arms", "seeds", *without}
        run = self.run
        content = self.model_dump(mode="json", exclude=left_out)
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


def load(name: str) -> San:
    """The experiment of conf/san/`name`.yaml. Raises UserError naming the key, also where CLIP is
    not as deep as the experiment needs."""
    where = f"conf/san/{name}.yaml"
    content = config.load(GROUP, name)
    san = validated(San, content, sentence=lambda problem: f"{where}: {problem.sentence()}")
    depth = san.run.model.depth
    if san.recognition >= depth:
        raise UserError(
            f"{where}: recognition={san.recognition}: model={san.model} has {depth} blocks, of "
            f"which none is left that recognises; take {depth - 1} or less, and no later output in "
            "fusion"
        )
    return san
