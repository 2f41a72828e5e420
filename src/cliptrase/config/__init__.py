"""What ONE run is: composes conf/, checks every value, derives what is left `auto`, names it.

Reads YAML only; imports neither torch nor Hydra, so that planning a suite costs nothing.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import yaml

from cliptrase.config.checks import DEFAULTS, TERMS, check_run, check_shape
from cliptrase.config.protocol_facts import facts
from cliptrase.config.values import parse_value as parse_value
from cliptrase.config.weights import describe_model
from cliptrase.config.words import describe_vocabulary
from cliptrase.errors import UserError, nearest
from cliptrase.resources import resource

CONF = resource("conf")
GROUPS = ("benchmark", "method", "model", "protocol")
VOLATILE = frozenset({"device", "batch_size", "workers", "out", "data"})

# Released code, main(): 224 px → 0.7 and 3, 336 px → 1.1 and 7 (the paper says 0.7 and 3 for all).
RELEASED_DBSCAN = {14 * 14: (0.7, 3), 21 * 21: (1.1, 7)}
# Pixels to which protocol slide resizes short sides, unless the benchmark says otherwise (SCLIP).
SHORT_SIDE = 336


def resolve(overrides: list[str]) -> dict[str, Any]:
    """The whole of one run, every value checked and derived, from `key=value` overrides.

    Returns plain dicts, lists, strings, numbers. Raises UserError naming the key and what exists.
    """
    keys = {override.partition("=")[0].strip() for override in overrides}
    given = not keys.isdisjoint({"benchmark.classes", "benchmark.background"})
    return derive(compose(overrides), words_given=given)


def compose(overrides: list[str]) -> dict[str, Any]:
    """What Hydra composes from conf/ for the same overrides (a test compares), `hydra` left out."""
    root = copy.deepcopy(_yaml(CONF / "evaluate.yaml"))
    defaults = [entry for entry in root.pop("defaults") if isinstance(entry, dict)]
    root.pop("hydra", None)
    chosen = {group: entry[group] for entry in defaults for group in GROUPS if group in entry}
    assignments = []
    for override in overrides:
        key, value = _split(override)
        if key in GROUPS:
            chosen[key] = str(value)
        else:
            assignments.append((key, value))
    for group, name in chosen.items():
        root[group] = load(group, name)
    for key, value in assignments:
        _assign(root, key, value)
    return root


def load(group: str, name: str) -> dict[str, Any]:
    """One file of conf/<group>/, as a fresh dict."""
    path = CONF / group / f"{name}.yaml"
    if "/" in name or not path.is_file():
        existing = (file.stem for file in (CONF / group).glob("*.yaml"))
        raise UserError(f"unknown {group} {name!r}; {nearest(name, existing)}")
    content = copy.deepcopy(_yaml(path))
    own = str(content.get("name", name))
    if group != "model" and own != name:  # runs and cells would bear another's name
        raise UserError(f"{path}: name: {own}; write name: {name}, as the file is called")
    return content


def derive(run: dict[str, Any], words_given: bool = False) -> dict[str, Any]:
    """Check a composed run and fill in what it leaves to be derived.

    words_given: the benchmark's words were chosen by hand: no protocol's lists replace them.
    """
    run = copy.deepcopy(run)
    _refuse_missing(run)
    if run["model"]["label"] == "auto":
        run["model"] = _model_of(run)
    check_shape(run)
    run["model"] = DEFAULTS["model"] | describe_model(run["model"])
    _protocol(run)
    check_run(run)
    for key in {"logit_scale", "background_threshold"} & run["protocol"].keys():
        run["protocol"][key] = float(run["protocol"][key])  # 40 and 40.0 are one run
    run["out"], run["data"] = str(run["out"]), str(run["data"])
    run["vocabulary"] = describe_vocabulary(run, words_given)
    run["benchmark"] = _benchmark(run["benchmark"])
    _method(run)
    return run


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


def identity(run: dict[str, Any]) -> dict[str, Any]:
    """A resolved run without what cannot change a number: paths, device, workers, folders.

    Optional keys of a method or a model at their default are left out: a run keeps its name when
    they learn another option.
    """
    kept = {key: _without_paths(value) for key, value in run.items() if key not in VOLATILE}
    kept["method"] = _without_defaults(kept["method"])
    kept["model"] = _changed("model", kept["model"])
    kept["protocol"].pop("vocabularies", None)  # the lists that it chose are in `vocabulary`
    return kept


def identity_sha256(run: dict[str, Any]) -> str:
    """sha256 of the canonical JSON of the identity."""
    text = json.dumps(identity(run), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def run_name(run: dict[str, Any]) -> str:
    """The name of the run's folder: readable parts, then ten digits of the identity."""
    parts = [run["benchmark"]["name"], run["method"]["name"], run["model"]["label"]]
    parts.append(str(run["image_size"]))
    if run["protocol"]["name"] != "crop":
        parts.append(run["protocol"]["name"])
    parts += _changes(run)
    if run["limit"] is not None:
        parts.append(f"limit-{run['limit']}")
    readable = ".".join(part.replace("/", "_") for part in parts)[:150]
    return f"{readable}.{identity_sha256(run)[:10]}"


def dump(run: dict[str, Any]) -> str:
    """The resolved identity as YAML, keys sorted: the same text for the same run."""
    return yaml.safe_dump(identity(run), sort_keys=True, allow_unicode=True)


def _changes(run: dict[str, Any]) -> list[str]:
    """`eps-0.9`, `short_side-448`, `vocabulary-words`, …: what differs from the files of conf/."""
    base = stock(run)
    words: list[str] = []
    if run["benchmark"]["name"] != "folder":
        own = describe_vocabulary(base, given=False)["classes"]["name"]
        mine = run["vocabulary"]["classes"]["name"]
        words = [f"vocabulary-{mine}"] * (mine != own)
    _method(base)
    return [
        *_different(base, run, "method"),
        *_different(base, run, "protocol"),
        *(f"{key}-{value}" for key, value in changed_model(run).items()),
        *words,
    ]


def changed_model(run: dict[str, Any]) -> dict[str, Any]:
    """key → value of a resolved run's optional keys of the model that are not at their default."""
    return _changed("model", {key: run["model"][key] for key in DEFAULTS["model"]})


def stock(run: dict[str, Any]) -> dict[str, Any]:
    """What the files of conf/ say of a resolved run's benchmark, method and protocol, overrides
    left out; the model and the image size are the run's."""
    chosen = [f"{group}={run[group]['name']}" for group in ("benchmark", "method", "protocol")]
    base = compose(chosen) | {key: run[key] for key in ("model", "image_size")}
    _protocol(base)
    return base


def _different(base: dict[str, Any], run: dict[str, Any], part: str) -> list[str]:
    if run[part].get("regions", True) is None and base[part]["regions"] is not None:
        base[part]["regions"] = None
        return ["regions-none", *_different(base, run, part)]
    mine, plain = _leaves(run[part]), _leaves(base[part])
    return [
        f"{key.split('.')[-1]}-{_short(mine.get(key))}"
        for key in sorted(mine | plain)
        if mine.get(key) != plain.get(key) and key != "vocabularies"
    ]


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _split(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key or key[0] in "+~":
        raise UserError(f"override {override!r}: write key=value, as in image_size=336")
    return key.strip(), parse_value(text)


def _assign(root: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    node: Any = root
    for depth, name in enumerate(parents):
        node = _child(node, name, ".".join(parents[: depth + 1]))
    _child(node, leaf, key)
    node[leaf] = value


def _child(node: Any, name: str, key: str) -> Any:
    if not isinstance(node, dict):
        above = key.rpartition(".")[0]
        held = "null" if node is None else repr(node)
        raise UserError(f"key {key!r} does not exist: {above!r} is {held} here")
    if name not in node:
        part = key.split(".")[-2] if "." in key else ""
        group = key.split(".")[0]
        if group in ("method", "model") and name in DEFAULTS.get(part, ()):
            raise UserError(
                f"{key} is not written in this {group}'s file of conf/{group}, which takes its "
                f"default ({name}: {json.dumps(DEFAULTS[part][name])}); add the line there, then "
                "any value can be set"
            )
        raise UserError(f"unknown key {key!r}; {nearest(name, node)}")
    return node[name]


def _refuse_missing(tree: dict[str, Any]) -> None:
    for key, value in _leaves(tree).items():
        if value == "???":
            raise UserError(f"{key} is needed: give {key}=…")


def _benchmark(benchmark: dict[str, Any]) -> dict[str, Any]:
    kept = {key: benchmark[key] for key in ("name", "dataset", "cls_logits")}
    if benchmark.get("subset") is not None:
        kept["subset"] = str(benchmark["subset"])
    if benchmark["dataset"] != "folder":
        return kept | {"labels": dict(benchmark["labels"])}
    from cliptrase.data.read.folder import folder_digest, ignore_value

    images, labels = Path(str(benchmark["images"])), Path(str(benchmark["labels"]))
    scored = {
        "map": benchmark.get("map"),
        "ignore": ignore_value(labels),
        "background": None if benchmark["background"] is None else "ignored",
    }
    source = {
        "images_path": str(images.absolute()),
        "labels_path": str(labels.absolute()),
        "digest": folder_digest(images, labels),
    }
    return kept | {"labels": scored, "folder": source}


def _model_of(run: dict[str, Any]) -> dict[str, Any]:
    """The composed model that the run's benchmark names, in the precision that is asked for."""
    model, asked = load("model", run["benchmark"]["model"]), run["model"].get("precision", "auto")
    return model if asked == "auto" else model | {"precision": asked}


def _protocol(run: dict[str, Any]) -> None:
    """Fill in the values of run["protocol"] that are `auto`, in place."""
    if run["protocol"].get("short_side") == "auto":
        run["protocol"]["short_side"] = run["benchmark"].get("short_side", SHORT_SIDE)


def _method(run: dict[str, Any]) -> None:
    """Fill in the values of run["method"] that are left out or `auto`, in place."""
    method, protocol = run["method"], facts(run)
    if method["cls_logits"] == "auto":
        method["cls_logits"] = run["benchmark"]["cls_logits"] and protocol.cls_logits
    method["attention"] = DEFAULTS["attention"] | method["attention"]
    terms = method["attention"]["terms"]  # in whatever order they are written, it is one run
    method["attention"]["terms"] = sorted(terms, key=TERMS.index)
    if method["attention"]["omega"] is not None:
        method["attention"]["omega"] = float(method["attention"]["omega"])
    regions = method["regions"]
    if regions is None:
        return
    regions = method["regions"] = DEFAULTS["regions"] | regions
    regions["correlation"] = DEFAULTS["correlation"] | regions["correlation"]
    if regions["vote"] == "auto":
        regions["vote"] = protocol.vote
    side = run["image_size"] // run["model"]["patch"]
    eps, min_samples = dbscan_defaults(side * side)
    if regions["eps"] == "auto":
        regions["eps"] = eps
    if regions["min_samples"] == "auto":
        regions["min_samples"] = min_samples
    regions["eps"] = float(regions["eps"])


def _without_defaults(method: dict[str, Any]) -> dict[str, Any]:
    method = {**method, "attention": _changed("attention", method["attention"])}
    if method["regions"] is not None:
        regions = _changed("regions", method["regions"])
        regions["correlation"] = _changed("correlation", regions["correlation"])
        method["regions"] = regions
    return method


def _changed(part: str, values: dict[str, Any]) -> dict[str, Any]:
    """`values` without the optional keys that are at their default."""
    default = DEFAULTS[part]
    return {
        key: value for key, value in values.items() if key not in default or value != default[key]
    }


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_paths(inner)
            for key, inner in value.items()
            if key != "path" and not key.endswith("_path")
        }
    return value


@functools.lru_cache(maxsize=256)
def _read_yaml(path: Path, mtime_ns: int) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML in UTF-8: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a YAML mapping")
    return content


def _yaml(path: Path) -> dict[str, Any]:
    return _read_yaml(path, path.stat().st_mtime_ns)
