"""What pictures are segmented with: a method on a model under a protocol, each fit for the others.

`auto` is filled in here, from the benchmark, the model and the protocol.
"""

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from cliptrase.config import backbones, files, outside, predictions
from cliptrase.config.files import Tree
from cliptrase.config.kinds import ATTENTION, PROTOCOL, VOTE, joined_by, vote_of
from cliptrase.config.method import BackboneNames, Backbones, Method
from cliptrase.config.schema import PROTOCOLS, Benchmark, Model, Protocol, Slide, WrittenModel
from cliptrase.config.validation import Count, Frozen, validated
from cliptrase.config.weights import describe_model
from cliptrase.config.written import text_of
from cliptrase.errors import UserError, nearest

# Released code, main(): 224 px → 0.7 and 3, 336 px → 1.1 and 7 (the paper says 0.7 and 3 for all).
RELEASED_DBSCAN = {14 * 14: (0.7, 3), 21 * 21: (1.1, 7)}
# Pixels to which protocol slide resizes short sides, unless the benchmark says otherwise (SCLIP).
SHORT_SIDE = 336


def check_device(device: object) -> str:
    """The name of a device, whether or not it is here. Raises UserError for what is none."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(device)):
        raise UserError(f"device={device}: unknown value; take auto, cpu, cuda or cuda:0")
    return str(device)


class _Size(Frozen):
    image_size: Count


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


def settings_of(
    tree: Tree, benchmark: Benchmark | None, picture: tuple[int, int] | None = None
) -> Settings:
    """The settings of a composed tree, checked.

    picture: height and width in pixels of what the model sees, where it is not image_size ×
    image_size. Raises UserError naming the key.
    """
    if predictions.is_predicted(tree["method"]):
        model = predictions.NO_MODEL
    else:
        model = describe_model(validated(WrittenModel, tree["model"], "model"))
    size = tree["image_size"] = validated(_Size, {"image_size": tree["image_size"]}).image_size
    if size % model.patch:
        down = size // model.patch * model.patch
        fitting = f"{down} or {down + model.patch}" if down else f"{model.patch}"
        raise UserError(
            f"image_size={size}: not a multiple of the model's patch, {model.patch}; take {fitting}"
        )
    method, protocol = method_and_protocol(tree, benchmark, model, picture)
    _check_blocks(method, model)
    _check_grids(method, model)
    if method.attention.within is not None and (benchmark is None or isinstance(protocol, Slide)):
        raise UserError(
            f"method.attention.within={method.attention.within}: it needs labels; an oracle of "
            "Table 4, for benchmarks under protocol crop"
        )
    if isinstance(protocol, Slide):
        _check_slide(protocol, size, method, model)
    beside = Backbones.model_validate({each.role: each for each in method.networks})
    parts = {"method": method, "model": model, "backbones": beside, "protocol": protocol}
    return validated(Settings, {**parts, "image_size": size, "device": tree["device"]})


def method_and_protocol(
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
    method = predictions.with_digest(tree["method"])
    method = outside.with_code(method, files.names("method"))
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


def _check_blocks(method: Method, model: Model) -> None:
    """Refuse blocks that the model has not."""
    keys, first = ("first_block", "last_block"), 13 - model.depth
    blocks = {f"method.attention.{key}": getattr(method.attention, key) for key in keys}
    if method.regions is not None and method.regions.correlation is not None:
        blocks["method.regions.correlation.block"] = method.regions.correlation.block
    for key, block in blocks.items():
        if block is not None and block < first:
            raise UserError(
                f"{key}={block}: a model of {model.depth} blocks has the blocks {first} to 12, "
                "counted as in a 12-block model, from the end"
            )


def _check_grids(method: Method, model: Model) -> None:
    """Refuse to cluster features that lie on other patches than the correlation."""
    regions = method.regions
    if regions is None or regions.cluster != "features":
        return
    patches = {"clip": (model.label, model.patch), "sam": ("SAM", None)}
    if method.dino is not None:
        patches["dino"] = (method.dino.label, method.dino.patch)
    source = regions.source
    (name, side), (other, other_side) = (
        patches[ATTENTION[method.attention.kind].grid],
        patches[source],
    )
    if side != other_side:
        of = "" if side is None else f" of {side} pixels"
        raise UserError(
            f"method.regions.cluster=features: with correlation.source={source} needs one grid, "
            f"but features lie on the patches{of} of {name}, and the correlation on those of "
            f"{other_side} pixels of {other}; take method.regions.cluster=rows"
        )


def _check_slide(protocol: Slide, size: int, method: Method, model: Model) -> None:
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
    if vote != "none" and joined_by(method):
        raise UserError(
            f"method.regions.vote={vote}: method.propagate={method.propagate} is of all windows of "
            "a picture together, and regions of each; take method.regions.vote=none"
        )
    if ATTENTION[method.attention.kind].whole:
        kind = (
            f"method.attention.kind={method.attention.kind}: joins windows on one grid of patches"
        )
        if vote != "none":
            raise UserError(
                f"method.regions.vote={vote}: {kind}, and regions are of windows; take none"
            )
        if method.propagate is not None:
            raise UserError(
                f"method.propagate={method.propagate}: {kind}, and logits propagate between "
                "patches of windows; take null"
            )
        if protocol.stride % model.patch:
            raise UserError(
                f"protocol.stride={protocol.stride}: {kind}; take a multiple of {model.patch}"
            )
    if vote != "none" and not VOTE[vote].averages:
        raise UserError(
            f"method.regions.vote={vote}: protocol slide averages the logits of its windows, and a "
            f"{vote} vote has none; take method.regions.vote=soft, or none"
        )
