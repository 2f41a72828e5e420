"""The values a composed run may hold: each refusal names the key, the value and what is allowed."""

from __future__ import annotations

import re
from typing import Any

from cliptrase.config.metric_names import RULES
from cliptrase.config.protocol_facts import PROTOCOLS
from cliptrase.errors import UserError, nearest

# Kinds of attention, and which of the keys `terms omega row_sum heads` each reads.
KINDS: dict[str, set[str]] = {
    "softmax": {"terms", "omega", "row_sum"},
    "cosine": {"terms", "row_sum", "heads"},
    "inner_product": {"terms", "row_sum", "heads"},
    "identity": set(),
    "clip_surgery": {"terms"},
    "gem": {"terms"},
}
MATRICES = ("cosine", "inner_product")  # one matrix for all heads; what regions may be made of
TWO_PATHS = ("clip_surgery", "gem")  # blocks add up on a path of their own
CHOICES: dict[str, tuple[Any, ...]] = {
    "method.attention.kind": tuple(KINDS),
    "method.attention.row_sum": ("none", 1, 3),
    "method.attention.heads": ("mean", "concatenated"),
    "method.regions.correlation.kind": MATRICES,
    "method.regions.correlation.heads": ("mean", "concatenated"),
    "method.regions.cluster": ("rows", "features"),
    "method.regions.l2_rows": (True, False),
    "method.regions.denoise": ("none", "cls", "eq7"),
    "method.regions.passes": (1, 2),
    "method.regions.vote": ("auto", "hard", "soft", "none"),
    "method.cls_logits": ("auto", True, False),
    "method.attention.residual": (True, False),
    "method.attention.ffn": (True, False),
    "model.kind": ("local", "open_clip"),
    "model.precision": ("fp32", "bf16", "fp16"),
    "protocol.name": tuple(PROTOCOLS),
    "protocol.rule": RULES,
}
TERMS = ("qk", "qq", "kk", "vv")
BLOCKS = range(1, 13)

# What a composed run holds: a dict of keys, or a kind of value.
_ATTENTION = dict.fromkeys(("kind", "terms", "first_block", "last_block", "residual", "ffn"), "any")
_REGIONS = {
    "correlation": {"block": "any", "kind": "any"},
    **dict.fromkeys(("cluster", "denoise", "eps", "min_samples"), "any"),
    **dict.fromkeys(("upsample", "median", "vote"), "any"),
}
# What the YAML of a method or a model may leave out, and what that means.
DEFAULTS: dict[str, dict[str, Any]] = {
    "attention": {"omega": None, "row_sum": "none", "heads": "mean"},
    "regions": {"l2_rows": False, "passes": 1},
    "correlation": {"heads": "mean"},
    "model": {"precision": "fp32"},
}
SHAPE: dict[str, Any] = {
    "benchmark": {
        **dict.fromkeys(("name", "dataset", "classes", "templates"), "text"),
        "background": "text or null",
        "cls_logits": "any",
    },
    "method": {"name": "text", "attention": _ATTENTION, "regions": "any", "cls_logits": "any"},
    "model": {"label": "text", "kind": "any"},
    "protocol": {"name": "any", "logit_scale": "any", "rule": "any"},  # and PROTOCOLS' keys
    "vocabulary": "text or null",
    "out": "text",
    "data": "text",
}
LABELS = {"map", "ignore", "background", "scored", "skip"}


def check_shape(run: dict[str, Any]) -> None:
    """Raise UserError where a composed run lacks a key, or has a value of the wrong kind there."""
    _shape(run, SHAPE, "")
    _only(run["method"]["attention"], [*_ATTENTION, *DEFAULTS["attention"]], "method.attention")
    regions = run["method"]["regions"]
    if regions is not None:
        _shape(regions, _REGIONS, "method.regions")
        _only(regions, [*_REGIONS, *DEFAULTS["regions"]], "method.regions")
        where = "method.regions.correlation"
        _only(regions["correlation"], ["block", "kind", *DEFAULTS["correlation"]], where)
    known = PROTOCOLS.get(str(run["protocol"]["name"]))
    own = {key: "any" for key in known.keys} if known else {}
    _shape(run["protocol"], own, "protocol")
    _only(run["protocol"], [*SHAPE["protocol"], *own], "protocol")
    benchmark = run["benchmark"]
    if benchmark["dataset"] == "folder":
        _shape(benchmark, {"images": "text", "labels": "text"}, "benchmark")
        _shape({"map": None} | benchmark, {"map": "text or null"}, "benchmark")
    else:
        _shape(
            benchmark,
            {"labels": {"map": "text", "ignore": "any", "background": "any"}},
            "benchmark",
        )
        _check_labels(benchmark["labels"])
    if not isinstance(benchmark["cls_logits"], bool):
        raise UserError(f"benchmark.cls_logits={_show(benchmark['cls_logits'])}: true or false")
    model = run["model"]
    if model["kind"] == "open_clip":
        _shape(model, {"name": "text", "pretrained": "text"}, "model")
    elif model.get("path") is not None:
        _shape(model, {"path": "text"}, "model")


def _shape(found: Any, wanted: dict[str, Any], where: str) -> None:
    if not isinstance(found, dict):
        raise UserError(f"{where}={_show(found)}: must hold the keys {', '.join(wanted)}")
    for name, kind in wanted.items():
        key = f"{where}.{name}" if where else name
        if name not in found:
            raise UserError(
                f"{key} is missing; write it where the other keys of {where or name} are"
            )
        value = found[name]
        if isinstance(kind, dict):
            _shape(value, kind, key)
        elif not _holds(kind, value):
            raise UserError(f"{key}={_show(value)}: must be a name or a path")


def _only(found: dict[str, Any], known: list[str], where: str) -> None:
    for key in found:
        if key not in known:
            raise UserError(f"unknown key '{where}.{key}'; {nearest(str(key), known)}")


def _holds(kind: str, value: Any) -> bool:
    """Whether a value is of a kind of SHAPE: any | text (a number is one too) | text or null."""
    if kind == "any" or (value is None and kind == "text or null"):
        return True
    return value is not None and not isinstance(value, bool | dict | list) and str(value) != ""


def _check_labels(labels: dict[str, Any]) -> None:
    for key in labels:
        if key not in LABELS:
            raise UserError(f"unknown key 'benchmark.labels.{key}'; {nearest(key, LABELS)}")
    if labels["ignore"] not in (255, 65535) or isinstance(labels["ignore"], bool):
        raise UserError(f"benchmark.labels.ignore={_show(labels['ignore'])}: must be 255 or 65535")
    background = labels["background"]
    listed = isinstance(background, list) and all(_is_raw(value) for value in background)
    if background is not None and background != "ignored" and not listed:
        raise UserError(
            f"benchmark.labels.background={_show(background)}: must be null, ignored (every "
            "ignored pixel is background) or a list of raw labels, as [0]"
        )
    if "scored" in labels:
        _integer("benchmark.labels.scored", labels["scored"], at_least=1)
    if "skip" in labels and labels["skip"] != "none" and not _is_raw(labels["skip"]):
        raise UserError(
            f"benchmark.labels.skip={_show(labels['skip'])}: must be a label value, or none"
        )


def _is_raw(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535


def check_run(run: dict[str, Any]) -> None:
    """Raise UserError at the first value of a composed run that no run can have."""
    for key, allowed in CHOICES.items():
        value = _get(run, key)
        if value is not _ABSENT and not any(value == a and type(value) is type(a) for a in allowed):
            raise UserError(
                f"{key}={_show(value)}: unknown value; {nearest(str(value), map(_show, allowed))}"
            )
    _check_attention(run["method"]["attention"])
    if run["method"]["regions"] is not None:
        _check_regions(run["method"]["regions"])
    patch, size = run["model"]["patch"], run["image_size"]
    _integer("image_size", size, at_least=1)
    if size % patch:
        fitting = f"{size // patch * patch or patch} or {(size // patch + 1) * patch}"
        raise UserError(
            f"image_size={size}: not a multiple of the model's patch, {patch}; take {fitting}"
        )
    _check_protocol(run["protocol"], size, run["method"]["regions"])
    for key, optional in (("limit", True), ("workers", True), ("batch_size", False)):
        if run[key] is not None or not optional:
            _integer(key, run[key], at_least=1)
    check_device(str(run["device"]))


def check_device(device: str) -> None:
    """Raise UserError for what is no device, whether or not it is here."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UserError(f"device={device}: unknown value; take auto, cpu, cuda or cuda:0")


def _check_protocol(protocol: dict[str, Any], size: int, regions: dict[str, Any] | None) -> None:
    _number("protocol.logit_scale", protocol["logit_scale"], above=0, at_most=10_000)
    if "stride" not in protocol:
        return
    _integer("protocol.stride", protocol["stride"], at_least=1)
    _integer("protocol.short_side", protocol["short_side"], at_least=1)
    if protocol["stride"] > size:
        raise UserError(
            f"protocol.stride={protocol['stride']}: leaves gaps between windows of "
            f"image_size={size}; take {size} or less"
        )
    if protocol["short_side"] < size:
        raise UserError(
            f"protocol.short_side={protocol['short_side']}: smaller than the window, "
            f"image_size={size}; take a larger one or a smaller window"
        )
    threshold = protocol["background_threshold"]
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        threshold = -1
    if not 0 <= threshold < 1:
        raise UserError(
            f"protocol.background_threshold={_show(protocol['background_threshold'])}: must be a "
            "probability, 0 (none) or more and below 1"
        )
    if regions is not None and regions["vote"] == "hard":
        raise UserError(
            "method.regions.vote=hard: protocol slide averages the logits of its windows, and a "
            "hard vote has none; take method.regions.vote=soft, or none"
        )


def _check_attention(attention: dict[str, Any]) -> None:
    kind, terms = attention["kind"], attention["terms"]
    reads = KINDS[kind]
    if "terms" not in reads:
        if terms != []:
            raise UserError(
                f"method.attention.terms={_show(terms)}: kind {kind} compares nothing; take []"
            )
    elif not isinstance(terms, list) or not terms or len(set(map(str, terms))) != len(terms):
        raise UserError(
            f"method.attention.terms={terms}: give a list without doubles, as [qq,kk,vv]"
        )
    for term in terms:
        if term not in TERMS:
            raise UserError(
                f"method.attention.terms: unknown term {term!r}; {nearest(term, TERMS)}"
            )
    if kind in TWO_PATHS and (attention["residual"], attention["ffn"]) != (True, False):
        raise UserError(
            f"method.attention.kind={kind}: its path has a residual and no FFN; take "
            "method.attention.residual=true and method.attention.ffn=false"
        )
    if kind == "gem" and "qk" in terms:
        raise UserError(
            "method.attention.terms: kind gem compares tokens with themselves; take qq, kk, vv"
        )
    if attention.get("row_sum", "none") != "none" and "row_sum" not in reads:
        raise UserError(
            f"method.attention.row_sum={attention['row_sum']}: kind {kind} has rows of its own; "
            "take none"
        )
    if attention.get("heads", "mean") != "mean" and "heads" not in reads:
        raise UserError(
            f"method.attention.heads={attention['heads']}: kind {kind} attends head by head; take "
            f"mean, or kind {' or '.join(MATRICES)}"
        )
    first, last = attention["first_block"], attention["last_block"]
    for key, block in (("first_block", first), ("last_block", last)):
        _block(f"method.attention.{key}", block)
    if first > last:
        raise UserError(f"method.attention.first_block={first} comes after last_block={last}")
    if attention.get("omega") is not None:
        _number("method.attention.omega", attention["omega"], above=0, at_most=10_000)
        if "omega" not in reads:
            raise UserError(
                f"method.attention.omega={attention['omega']}: is added before a softmax; take "
                f"null with kind {kind}"
            )


def _check_regions(regions: dict[str, Any]) -> None:
    _block("method.regions.correlation.block", regions["correlation"]["block"])
    if regions["eps"] != "auto":
        _number("method.regions.eps", regions["eps"], above=0)
    if regions["min_samples"] != "auto":
        _integer("method.regions.min_samples", regions["min_samples"], at_least=1)
    _integer("method.regions.upsample", regions["upsample"], at_least=1, at_most=32)
    _integer("method.regions.median", regions["median"], at_least=1, at_most=99)
    if regions["median"] % 2 == 0:
        raise UserError(f"method.regions.median={regions['median']}: the window must be odd")


def _block(key: str, value: Any) -> None:
    _integer(key, value, at_least=1)
    if value not in BLOCKS:
        raise UserError(f"{key}={value}: blocks are counted 1 to 12, from the end on other depths")


def _integer(key: str, value: Any, at_least: int, at_most: int | None = None) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= at_least
    if not fits or (at_most is not None and value > at_most):
        limits = f"{at_least} or more" if at_most is None else f"{at_least} to {at_most}"
        raise UserError(f"{key}={_show(value)}: must be a whole number, {limits}")


def _number(key: str, value: Any, above: float, at_most: float = float("inf")) -> None:
    """A number in (above, at_most]; not so small that float32 has none, where there is a limit."""
    wrong_type = isinstance(value, bool) or not isinstance(value, int | float)
    least = above if at_most == float("inf") else above + 1e-3
    if wrong_type or not (above < value and least <= value <= at_most and value < float("inf")):
        limits = f"greater than {above}"
        if at_most != float("inf"):
            limits = f"from {least:g} to {at_most:g}"
        raise UserError(f"{key}={_show(value)}: must be a number {limits}")


_ABSENT = object()


def _get(tree: Any, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(tree, dict) or name not in tree:
            return _ABSENT
        tree = tree[name]
    return tree


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)
