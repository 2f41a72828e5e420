"""A run: one point of conf/, every value checked and derived; its name and its identity."""

import functools
import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field

from cliptrase.config import backbones, files
from cliptrase.config.compose import compose
from cliptrase.config.files import Tree
from cliptrase.config.kinds import PROTOCOL, VOTE, has_background, vote_of
from cliptrase.config.method import BackboneNames, Backbones, Count, Method
from cliptrase.config.schema import (
    PROTOCOLS,
    Benchmark,
    FolderFiles,
    Model,
    Protocol,
    Slide,
    Vocabulary,
    WrittenModel,
)
from cliptrase.config.validation import Frozen, PathText, validated, whole
from cliptrase.config.weights import describe_model
from cliptrase.config.words import describe_vocabulary
from cliptrase.config.written import text_of
from cliptrase.data.read.vocabularies import texts
from cliptrase.errors import UserError, nearest
from cliptrase.files import known_sha256, sha256_text

# Released code, main(): 224 px → 0.7 and 3, 336 px → 1.1 and 7 (the paper says 0.7 and 3 for all).
RELEASED_DBSCAN = {14 * 14: (0.7, 3), 21 * 21: (1.1, 7)}
LONGEST_NAME = 128  # characters, which W&B takes
LONGEST_BYTES = 220  # so that temporary names beside the folder have at most 255
# Pixels to which protocol slide resizes short sides, unless the benchmark says otherwise (SCLIP).
SHORT_SIDE = 336
OPEN_KEYS = ("method", "model", "protocol")  # the groups that overrides for pictures may reach into


def check_device(device: object) -> str:
    """The name of a device, whether or not it is here. Raises UserError for what is none."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(device)):
        raise UserError(f"device={device}: unknown value; take auto, cpu, cuda or cuda:0")
    return str(device)


class Settings(Frozen):
    """A method on a model under a protocol: what pictures are segmented with.

    backbones: the networks that the method needs beside the model.
    """

    method: Method
    model: Model
    backbones: Backbones = Backbones()
    protocol: Protocol = Field(discriminator="name")
    image_size: Count
    device: Annotated[str, BeforeValidator(check_device)] = Field(exclude=True)


class Run(Settings):
    """One run: its settings, and the benchmark and words that it is scored on.

    `limit`: the first images, None for all. The keys after it cannot change a number and are no
    part of the identity. `save_maps`: of how many pictures the label maps are kept.
    """

    benchmark: Benchmark
    vocabulary: Vocabulary
    limit: Count | None
    batch_size: Count = Field(exclude=True)
    workers: Count | None = Field(exclude=True)
    save_maps: Annotated[int, whole(0)] = Field(exclude=True)
    out: PathText = Field(exclude=True)
    data: PathText = Field(exclude=True)

    @functools.cached_property
    def identity(self) -> Tree:
        """All that can change a number, as plain types; optional keys at their default left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

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
        if self.limit is not None:
            parts.append(f"limit-{self.limit}")
        readable = ".".join(part.replace("/", "_") for part in parts)[: LONGEST_NAME - 11]
        short = readable.encode(errors="backslashreplace")[:LONGEST_BYTES]
        return f"{short.decode(errors='ignore')}.{self.sha256[:10]}"

    @property
    def stock(self) -> tuple[Method, Protocol, str]:
        """Its method and protocol without overrides, for its benchmark, model and image size, and
        the name of its list of classes then."""
        names = (self.benchmark.name, self.method.name, self.protocol.name)
        return _stock(files.CONF, *names, self.model, self.image_size)

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
    _refuse_missing(tree)
    benchmark = _benchmark(tree["benchmark"])
    if isinstance(tree["model"], dict) and tree["model"].get("label") == "auto":
        asked = tree["model"].get("precision", "auto")
        tree["model"] = files.load("model", benchmark.model)
        if asked != "auto":
            tree["model"]["precision"] = asked
    settings = _settings(tree, benchmark)
    vocabulary = describe_vocabulary(benchmark, tree["vocabulary"], settings.protocol, words_given)
    keys_after = ("limit", "batch_size", "workers", "save_maps", "out", "data")
    rest = {key: tree[key] for key in keys_after}
    run = validated(
        Run, {**dict(settings), "benchmark": benchmark, "vocabulary": vocabulary, **rest}
    )
    _check_clusters(run)
    return run


def resolve_settings(overrides: Iterable[str], size: tuple[int, int] | None = None) -> Settings:
    """What pictures without a benchmark are segmented with, from the same overrides.

    size: height and width in pixels of what the model sees, where it is not image_size ×
    image_size: eps and min_samples follow its patches unless they are set.
    """
    tree = compose(overrides)
    del tree["benchmark"]
    _refuse_missing(tree)
    settings = _settings(tree, None, size)
    if settings.method.unsupervised is not None:
        raise UserError(
            f"method={settings.method.name}: it gives clusters of regions their classes by the "
            "ground truth of a whole benchmark, which a picture has not; take another method, as "
            "cliptrase"
        )
    return settings


def picture_overrides(
    model: object, method: str, device: str, image_size: int | None, overrides: Iterable[str]
) -> list[str]:
    """The overrides for `resolve_settings` of what pictures are segmented with.

    model: a name of conf/model, or open_clip's own `local-dir:DIR`, or a Path; overrides: keys of
    the groups OPEN_KEYS. Raises UserError for a name that is none (`auto` means the model of a
    benchmark, and a picture has none), and for other keys.
    """
    names = [name for name in files.names("model") if name != "auto"]
    if isinstance(model, Path):
        if str(model) in names and not model.is_dir():
            raise UserError(
                f"model: {model} is no folder; give the model of that name as text, {str(model)!r}"
            )
        model = f"local-dir:{model}"
    if not isinstance(model, str):
        known = nearest("", [*names, "local-dir:DIR"])
        raise UserError(f"model: of type {type(model).__name__}; give a name or a Path. {known}")
    kind, colon, folder = model.partition(":")
    chosen = [f"method={method}", f"device={device}", f"model={model}"]
    if kind == "local-dir" and colon:
        # surrogates alone are escaped: YAML takes no raw ones, and no pairs
        path = json.dumps(folder, ensure_ascii=False).encode(errors="backslashreplace").decode()
        chosen[-1:] = ["model=local", f"model.path={path}"]
    elif model not in names:
        if os.path.isdir(os.path.expanduser(model)):
            raise UserError(f"model {model!r}: a folder; write local-dir:{model}")
        raise UserError(f"unknown model {model!r}; {nearest(model, [*names, 'local-dir:DIR'])}")
    for override in overrides:
        group, dot, _ = override.partition("=")[0].partition(".")
        if group not in OPEN_KEYS or not dot:
            raise UserError(
                f"override {override!r}: a picture has the keys {'.…, '.join(OPEN_KEYS)}.… only; "
                "method, model, image_size and device are arguments of their own"
            )
        chosen.append(override)
    return chosen if image_size is None else [*chosen, f"image_size={image_size}"]


def dbscan_defaults(n_patches: int) -> tuple[float, int]:
    """eps and min_samples for an image of `n_patches` patches.

    The released code's values at 14 × 14 and 21 × 21; elsewhere scaled from the first (a reading:
    the norm of a correlation row grows with √N).
    """
    if n_patches in RELEASED_DBSCAN:
        return RELEASED_DBSCAN[n_patches]
    base, (eps, min_samples) = next(iter(RELEASED_DBSCAN.items()))
    scaled = max(2, round(min_samples * n_patches / base))
    return eps * math.sqrt(n_patches / base), scaled


@functools.lru_cache(maxsize=1024)
def _stock(
    conf: Path, benchmark: str, method: str, protocol: str, model: Model, image_size: int
) -> tuple[Method, Protocol, str]:
    """A method and a protocol as the files of the folder conf say them, for a benchmark, a model
    and an image size, and the name of the benchmark's list of classes then ("" for a folder)."""
    tree = compose([f"benchmark={benchmark}", f"method={method}", f"protocol={protocol}"])
    tree["image_size"] = image_size
    written = tree["benchmark"]
    folder = written["dataset"] == "folder"
    if folder:
        plain = {key: written[key] for key in written if key not in FolderFiles.model_fields}
        labels = {"map": None, "ignore": 255, "background": None}
        written = plain | {"labels": labels, "classes": "-"}
    usual = validated(Benchmark, written, "benchmark")
    fitted = _method_and_protocol(tree, usual, model)
    words = None if folder else describe_vocabulary(usual, None, fitted[1], given=False)
    return *fitted, words.classes.name if words else ""


def _benchmark(content: Any) -> Benchmark:
    """A benchmark over a prepared dataset, or over a folder, whose files are looked at."""
    if not isinstance(content, dict):
        return validated(Benchmark, content, "benchmark")
    is_folder = content.get("dataset") == "folder"
    keys = Benchmark.model_fields | (FolderFiles.model_fields if is_folder else {})
    for key in content:
        if key not in keys or key == "folder":  # which is made here
            hint = nearest(str(key), keys.keys() - {"folder"})
            raise UserError(f"unknown key 'benchmark.{key}'; {hint}")
    if not is_folder:
        return validated(Benchmark, content, "benchmark")
    from cliptrase.data.read.folder import folder_digest, ignore_value

    given = {key: content[key] for key in FolderFiles.model_fields if key in content}
    rest = {key: value for key, value in content.items() if key not in given}
    place = validated(FolderFiles, given, "benchmark")
    files = (Path(place.images), Path(place.labels), place.image, place.mask)
    background = None if content.get("background") is None else "ignored"
    usual = 65535
    if place.colours is None:
        try:
            usual = ignore_value(*files[1:])
        except UserError:
            if place.ignore is None:  # what may cure it
                raise
    ignored = None if place.ignore == usual else place.ignore
    scored = {
        "map": place.map,
        "ignore": usual if ignored is None else 65535,
        "background": background,
        "reduce_zero_label": place.reduce_zero_label,
        "ignored": ignored,
    }
    folder = {
        "images_path": str(files[0].absolute()),
        "labels_path": str(files[1].absolute()),
        "image": place.image,
        "mask": place.mask,
        "digest": folder_digest(*files),
        "orientation": place.orientation,
    }
    if place.colours is not None:
        table = Path(place.colours).absolute()
        try:
            folder |= {"colours_path": str(table), "colours": known_sha256(table)}
        except OSError as error:
            raise UserError(
                f"benchmark.colours={table}: cannot be read ({error.strerror}); give a text file "
                "of R,G,B,class a line"
            ) from error
    return validated(Benchmark, rest | {"labels": scored, "folder": folder}, "benchmark")


def _settings(
    tree: Tree, benchmark: Benchmark | None, picture: tuple[int, int] | None = None
) -> Settings:
    written = validated(WrittenModel, tree["model"], "model")
    model = describe_model(written)
    size = tree["image_size"] = validated(_Size, {"image_size": tree["image_size"]}).image_size
    if size % model.patch:
        down = size // model.patch * model.patch
        fitting = f"{down or model.patch} or {down + model.patch}"
        raise UserError(
            f"image_size={size}: not a multiple of the model's patch, {model.patch}; take {fitting}"
        )
    method, protocol = _method_and_protocol(tree, benchmark, model, picture)
    _check_blocks(method, model)
    _check_grids(method, model)
    if method.attention.within is not None and (benchmark is None or isinstance(protocol, Slide)):
        raise UserError(
            f"method.attention.within={method.attention.within}: it needs labels; an oracle of "
            "Table 4, for benchmarks under protocol crop"
        )
    if isinstance(protocol, Slide):
        _check_slide(protocol, size, method)
    needed = bool(method.networks)
    beside = Backbones(sam=method.sam, dino=method.dino) if needed else Backbones()
    parts = {"method": method, "model": model, "backbones": beside, "protocol": protocol}
    return validated(Settings, {**parts, "image_size": size, "device": tree["device"]})


class _Size(Frozen):
    image_size: Count


def _method_and_protocol(
    tree: Tree, benchmark: Benchmark | None, model: Model, picture: tuple[int, int] | None = None
) -> tuple[Method, Protocol]:
    """Both with the values that are `auto` filled in."""
    content = dict(tree["protocol"])
    if content.get("short_side") == "auto":
        content["short_side"] = (benchmark and benchmark.short_side) or SHORT_SIDE
    name = content.get("name")
    if name not in PROTOCOLS:
        hint = nearest(str(name), PROTOCOLS)
        raise UserError(f"protocol.name={text_of(name)}: unknown value; {hint}")
    facts = PROTOCOL[name]
    protocol = validated(PROTOCOLS[name], content, "protocol")
    method = dict(tree["method"])
    if method.get("cls_logits") == "auto":
        method["cls_logits"] = facts.cls_logits and benchmark is not None and benchmark.cls_logits
    prefers = validated(BackboneNames, method.pop("prefers", {}), "method.prefers")
    for role in ("sam", "dino"):
        if role in method:
            method[role] = backbones.choose(role, method[role], prefers, model)
    if isinstance(method.get("regions"), dict):
        patch, dino = model.patch, method.get("dino")
        if (
            dino is not None
            and (method["regions"].get("correlation") or {}).get("source") == "dino"
        ):
            patch = dino.patch
        sides = picture or (tree["image_size"],) * 2
        patches = (max(1, (side + patch // 2) // patch) for side in sides)
        eps, min_samples = dbscan_defaults(math.prod(patches))
        auto = {"eps": eps, "min_samples": min_samples, "vote": facts.vote}
        method["regions"] = {
            key: auto.get(key, value) if value == "auto" else value
            for key, value in method["regions"].items()
        }
    return validated(Method, method, "method"), protocol


def _check_blocks(method: Method, model: Model) -> None:
    """Refuse blocks that the model has not."""
    keys, first = ("first_block", "last_block"), 13 - model.depth
    blocks = {f"method.attention.{key}": getattr(method.attention, key) for key in keys}
    if method.regions is not None:
        blocks["method.regions.correlation.block"] = method.regions.correlation.block
    for key, block in blocks.items():
        if block is not None and block < first:
            raise UserError(
                f"{key}={block}: a model of {model.depth} blocks has the blocks {first} to 12, "
                "counted as in a 12-block model, from the end"
            )


def _check_grids(method: Method, model: Model) -> None:
    """Refuse to cluster CLIP's features by the patches of another network."""
    regions, dino = method.regions, method.dino
    if regions is None or dino is None or regions.correlation.source != "dino":
        return
    if regions.cluster == "features" and dino.patch != model.patch:
        raise UserError(
            f"method.regions.cluster=features: with correlation.source=dino needs one grid, but "
            f"{dino.label} has patches of {dino.patch} pixels and {model.label} of {model.patch}; "
            "take method.regions.cluster=rows"
        )


def _check_clusters(run: Run) -> None:
    """Refuse fewer clusters than classes: some could never be predicted."""
    unsupervised, classes = run.method.unsupervised, run.vocabulary.classes.count
    classes += has_background(run)
    if unsupervised and isinstance(unsupervised.clusters, int) and unsupervised.clusters < classes:
        raise UserError(
            f"method.unsupervised.clusters={unsupervised.clusters}: fewer than the {classes} "
            f"classes of benchmark {run.benchmark.name}; take K or {classes} or more"
        )


def _check_slide(protocol: Slide, size: int, method: Method) -> None:
    if method.unsupervised is not None:
        raise UserError(
            f"method={method.name}: it clusters the regions of whole crops, and protocol slide has "
            "windows; take protocol=crop"
        )
    if protocol.stride > size:
        raise UserError(
            f"protocol.stride={protocol.stride}: leaves gaps between windows of "
            f"image_size={size}; take {size} or less"
        )
    if protocol.short_side < size:
        raise UserError(
            f"protocol.short_side={protocol.short_side}: smaller than the window, "
            f"image_size={size}; take a larger one or a smaller window"
        )
    if method.sees_original:
        raise UserError(
            "method.regions.sam.sees=original: windows are parts of the resized picture; take "
            "method.regions.sam.sees=network, or protocol=crop"
        )
    vote = vote_of(method)
    if vote != "none" and not VOTE[vote].averages:
        raise UserError(
            f"method.regions.vote={vote}: protocol slide averages the logits of its windows, and a "
            f"{vote} vote has none; take method.regions.vote=soft, or none"
        )


def _different(base: Frozen, changed: Frozen) -> list[str]:
    """`eps-0.9`, `short_side-448`, …: the values of `changed` that `base` has not."""
    mine, plain = changed.model_dump(mode="json"), base.model_dump(mode="json")
    regions = "regions" in mine and mine["regions"] is None and plain["regions"] is not None
    if regions:
        plain["regions"] = None
    mine, plain = _leaves(mine), _leaves(plain)
    parts = ["regions-none"] * regions
    for key in sorted(mine | plain):
        value = mine.get(key)
        if value != plain.get(key):
            text = "+".join(map(str, value)) if isinstance(value, list) else str(value).lower()
            parts.append(f"{key.split('.')[-1]}-{text}")
    return parts


def _leaves(tree: Tree, prefix: str = "") -> Tree:
    flat: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _refuse_missing(tree: Tree) -> None:
    for key, value in _leaves(tree).items():
        if value == "???":
            raise UserError(f"{key} is needed: give {key}=… (`cliptrase segment`: --set {key}=…)")
