"""A run: one point of conf/, every value checked and derived; its name and its identity."""

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from cliptrase.config import files, outside
from cliptrase.config.benchmarks import describe_benchmark
from cliptrase.config.compose import compose, leaves, refuse_missing
from cliptrase.config.files import Tree
from cliptrase.config.kinds import has_background
from cliptrase.config.method import Method
from cliptrase.config.schema import Benchmark, FolderFiles, Model, Protocol, Vocabulary
from cliptrase.config.settings import Settings, method_and_protocol, settings_of
from cliptrase.config.validation import Count, Flag, Frozen, PathText, validated, whole
from cliptrase.config.words import describe_vocabulary, with_distractors
from cliptrase.data.read.vocabularies import texts
from cliptrase.errors import UserError
from cliptrase.files import sha256_text

LONGEST_NAME = 128  # characters, which W&B takes
LONGEST_BYTES = 220  # so that temporary names beside the folder have at most 255


class Run(Settings):
    """One run: its settings, and the benchmark and words that it is scored on.

    `limit`: the first images, None for all. The keys after it cannot change a number and are no
    part of the identity. `save_maps`: of how many pictures the label maps are kept. `ledger`:
    whether the errors are kept by category (docs/errors.md).
    """

    benchmark: Benchmark
    vocabulary: Vocabulary
    limit: Count | None
    batch_size: Count = Field(exclude=True)
    workers: Count | None = Field(exclude=True)
    save_maps: Annotated[int, whole(0)] = Field(exclude=True)
    ledger: Flag = Field(exclude=True)
    out: PathText = Field(exclude=True)
    data: PathText = Field(exclude=True)
    overrides: tuple[str, ...] = Field((), exclude=True)  # that it was resolved from

    @functools.cached_property
    def identity(self) -> Tree:
        """All that can change a number, as plain types; optional keys at their default left out."""
        tree = self.model_dump(mode="json", exclude_defaults=True)
        if self.method.digest is not None:  # no network computes anything
            del tree["model"]
            tree["method"] = {"name": self.method.name, "digest": self.method.digest}
        return tree

    @functools.cached_property
    def sha256(self) -> str:
        """sha256 of the canonical JSON of the identity."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return sha256_text(text)

    @functools.cached_property
    def name(self) -> str:
        """The name of the run's folder: readable parts, then ten digits of the identity."""
        parts = [self.benchmark.name, self.method.name, self.model.label, str(self.image_size)]
        if self.protocol.name != "crop":
            parts.append(self.protocol.name)
        method, protocol, classes = self.stock
        parts += [*_different(method, self.method), *_different(protocol, self.protocol)]
        parts += [f"{key}-{value}" for key, value in self.model.changed.items()]
        for role, network in self.backbones:
            usual = getattr(method, role)
            if network is not None and (usual is None or usual.label != network.label):
                parts.append(f"{role}-{network.label}")
        if classes not in ("", self.vocabulary.classes.name):
            parts.append(f"vocabulary-{self.vocabulary.classes.name}")
        if (drawn := self.vocabulary.distractors) is not None:
            parts.append(f"distractors-{drawn.count}")
            parts += [f"distractor_seed-{drawn.seed}"] * (drawn.seed > 0)
        if self.limit is not None:
            parts.append(f"limit-{self.limit}")
        readable = ".".join(part.replace("/", "_") for part in parts)[: LONGEST_NAME - 11]
        short = readable.encode(errors="backslashreplace")[:LONGEST_BYTES]
        return f"{short.decode(errors='ignore')}.{self.sha256[:10]}"

    @property
    def stock(self) -> tuple[Method, Protocol, str]:
        """Its method and protocol without overrides, for its benchmark, model and image size, and
        the name of its list of classes then."""
        method, code = self.method.name, self.method.attention.file
        places = {"file": code, "path": self.method.path}
        given = tuple((key, place) for key, place in places.items() if place is not None)
        if code is not None and method not in files.names("method"):
            method = outside.NAMELESS
        names = (self.benchmark.name, method, self.protocol.name)
        return _stock(files.folders(), *names, self.model, self.image_size, given)

    @functools.cached_property
    def changed_settings(self) -> dict[str, float | int]:
        """key → value of its protocol where `stock` says otherwise, in the order of the file; less
        what the run says elsewhere."""
        usual, elsewhere = dict(self.stock[1]), ("rule", "vocabularies")
        settings = {key: value for key, value in self.protocol if key not in elsewhere}
        return {key: value for key, value in settings.items() if value != usual[key]}

    @functools.cached_property
    def protocol_text(self) -> str:
        """`slide`, or `slide(short_side=448,logit_scale=65)`: the protocol and what differs."""
        changed = ",".join(
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in self.changed_settings.items()
        )
        return self.protocol.name + (f"({changed})" if changed else "")

    @functools.cached_property
    def text(self) -> str:
        """The identity as YAML, keys sorted: the same text for the same run."""
        return yaml.safe_dump(self.identity, sort_keys=True, allow_unicode=True)


def resolve(overrides: Iterable[str]) -> Run:
    """The whole of one run, every value checked and derived, from `key=value` overrides.

    Raises UserError naming the key and what exists.
    """
    overrides = texts(overrides, "overrides")
    keys = {override.partition("=")[0].strip() for override in overrides}
    words_given = not keys.isdisjoint({"benchmark.classes", "benchmark.background"})
    tree = compose(overrides)
    refuse_missing(tree)
    benchmark = describe_benchmark(tree["benchmark"])
    if isinstance(tree["model"], dict) and tree["model"].get("label") == "auto":
        asked = tree["model"].get("precision", "auto")
        tree["model"] = files.load("model", benchmark.model)
        if asked != "auto":
            tree["model"]["precision"] = asked
    settings = settings_of(tree, benchmark)
    vocabulary = describe_vocabulary(benchmark, tree["vocabulary"], settings.protocol, words_given)
    vocabulary = with_distractors(vocabulary, benchmark, settings.method, tree)
    keys_after = ("limit", "batch_size", "workers", "save_maps", "ledger", "out", "data")
    rest = {key: tree[key] for key in keys_after}
    rest["overrides"] = tuple(overrides)
    run = validated(
        Run, {**dict(settings), "benchmark": benchmark, "vocabulary": vocabulary, **rest}
    )
    _check_clusters(run)
    if run.ledger and vocabulary.distractors is not None:
        raise UserError(
            "ledger=true: with distractors a wrong pixel may have no class; take false, or no "
            "distractors"
        )
    if run.ledger and run.method.unsupervised is not None:
        raise UserError(
            "ledger=true: with method.unsupervised the classes of pixels are decided when all "
            "images are counted; take false"
        )
    return run


@functools.lru_cache(maxsize=1024)
def _stock(
    conf: tuple[Path, ...],
    benchmark: str,
    method: str,
    protocol: str,
    model: Model,
    image_size: int,
    given: tuple[tuple[str, str], ...],
) -> tuple[Method, Protocol, str]:
    """A method (its code or its label maps where the keys `given` say) and a protocol as the files
    of the folders conf say them, for a benchmark, a model and an image size, and the name of the
    benchmark's list of classes then ("" for a folder)."""
    tree = compose([f"benchmark={benchmark}", f"method={method}", f"protocol={protocol}"])
    tree["method"] |= dict(given)
    tree["image_size"] = image_size
    written = tree["benchmark"]
    folder = written["dataset"] == "folder"
    if folder:
        plain = {key: written[key] for key in written if key not in FolderFiles.model_fields}
        labels = {"map": None, "ignore": 255, "background": None}
        written = plain | {"labels": labels, "classes": "-"}
    usual = validated(Benchmark, written, "benchmark")
    fitted = method_and_protocol(tree, usual, model)
    words = None if folder else describe_vocabulary(usual, None, fitted[1], given=False)
    return *fitted, words.classes.name if words else ""


def _check_clusters(run: Run) -> None:
    """Refuse fewer clusters than classes: some could never be predicted."""
    unsupervised, classes = run.method.unsupervised, run.vocabulary.classes.count
    classes += has_background(run)
    if unsupervised and isinstance(unsupervised.clusters, int) and unsupervised.clusters < classes:
        raise UserError(
            f"method.unsupervised.clusters={unsupervised.clusters}: fewer than the {classes} "
            f"classes of benchmark {run.benchmark.name}; take K or {classes} or more"
        )


def _different(base: Frozen, changed: Frozen) -> list[str]:
    """`eps-0.9`, `short_side-448`, …: the values of `changed` that `base` has not."""
    mine, plain = changed.model_dump(mode="json"), base.model_dump(mode="json")
    regions = "regions" in mine and mine["regions"] is None and plain["regions"] is not None
    if regions:
        plain["regions"] = None
    mine, plain = leaves(mine), leaves(plain)
    parts = ["regions-none"] * regions
    for key in sorted(mine | plain):
        value = mine.get(key)
        if value != plain.get(key):
            text = "+".join(map(str, value)) if isinstance(value, list) else str(value).lower()
            said = key.replace("pamr.", "pamr_")  # "steps" alone says nothing
            parts.append(f"{said.split('.')[-1]}-{text}")
    return parts
