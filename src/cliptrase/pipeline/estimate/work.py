"""What one pass computes of an image, counted from its runs: what they share is counted once.

The keys say what evaluate/keys.py says, without its torch: tests hold them together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cliptrase.pipeline.estimate.model import Parts, Shape

Run = Any
ONE_PLACE = ("softmax", "cosine", "inner_product", "identity")  # else a function of its own

# Of the cost model's own: what the pictures decide, as medians of the benchmarks' scenes.
CLUSTERS = {196: 14, 441: 10}  # by patches
LEFT = 0.6  # names that are not dropped before they are upsampled
# Of more names than segment/logits.py's MANY: what tiles cost a pixel, in names without tiles, and
# a further name of them.
MANY, TILES, TILED = 100, 78.0, 0.1
# Of every further clustering of the same rows: the share of its clusters, and of its maps of
# regions, that no other had (measured over the 64 of Figure 7).
NEW_CLUSTERS = 0.2
NEW_REGIONS = 0.5
# How often a pair of patches is looked at: for its distance, for an eps, by one DBSCAN.
DISTANCES, NEAR, CLUSTERING = 3.0, 1.0, 8.0


@dataclass(frozen=True)
class Counts:
    """Of one image, or of one window of it.

    encoded: transformer blocks. blocks: other matrix products in their measure. pairs: of patches,
    that clustering looks at. filtered: values that medians are taken of. regions: clusters ×
    pixels. named: names × pixels. voted: pixels.
    """

    encoded: float = 0.0
    blocks: float = 0.0
    pairs: float = 0.0
    filtered: float = 0.0
    regions: float = 0.0
    named: float = 0.0
    voted: float = 0.0


def text_key(run: Run) -> str:
    """The same for runs whose words are the same, in the same order."""
    vocabulary = {
        part: entry and entry["sha256"] for part, entry in sorted(run["vocabulary"].items())
    }
    return json.dumps([vocabulary, run["protocol"]["name"] == "slide"])


def attention_key(method: Run) -> str:
    attention = method["attention"]
    return _text(attention | {"terms": sorted(attention["terms"])})


def rows_key(regions: Run) -> str:
    return _text([regions["correlation"], regions["denoise"] == "cls"])


def distances_key(method: Run) -> str:
    """What is clustered: rows of a correlation, or features."""
    regions = method["regions"]
    if regions["cluster"] == "features":
        return "features" + attention_key(method)
    return _text([rows_key(regions), regions["l2_rows"]])


def clustering_key(method: Run) -> str:
    regions = method["regions"]
    key = [distances_key(method), regions["eps"], regions["min_samples"]]
    if regions["denoise"] == "eq7":
        key += [regions["correlation"], regions["passes"]]
    return _text(key)


def smoothing_key(regions: Run) -> str:
    return _text([rows_key(regions), regions["upsample"], regions["median"]])


def logits_key(run: Run) -> str:
    method = run["method"]
    scale = 1.0 if slides(run) else run["protocol"]["logit_scale"]
    return _text([attention_key(method), bool(method["cls_logits"]), text_key(run), scale])


def vote_of(method: Run) -> str:
    return "none" if method["regions"] is None else str(method["regions"]["vote"])


def cost_key(run: Run) -> str:
    """The same for runs that cost the same by themselves."""
    method = json.loads(json.dumps(run["method"]))
    for key in ("eps", "min_samples"):
        (method["regions"] or {}).pop(key, None)
    return _text([method, text_key(run)])


def counts(
    runs: Iterable[Run], shape: Shape, names: Callable[[Run], int], *, tiled: bool = True
) -> Counts:
    """Of one image, or one window, of `runs` of one pass, with what they share counted once.

    names: how many the words of a run are. tiled: whether many of them are compared tile by tile,
    as a CPU does.
    """
    runs = list(runs)
    if not runs:
        return Counts()
    pixels = runs[0]["image_size"] ** 2
    parts = Parts(shape, shape.patches(runs[0]["image_size"]))
    clusters = CLUSTERS.get(parts.patches, 12)
    voting = [run for run in runs if vote_of(run["method"]) != "none"]
    logits = _first(runs, logits_key)
    whole = [run for run in logits.values() if not slides(run)]
    rows = {distances_key(run["method"]) for run in voting}
    near = {(distances_key(run["method"]), run["method"]["regions"]["eps"]) for run in voting}
    maps = _first(voting, _map_key)
    share: dict[str, float] = {}  # of a region map: what is new in it
    filtered = 0.0
    for alike in _grouped(maps, lambda run: smoothing_key(run["method"]["regions"])):
        share |= {key: NEW_REGIONS if number else 1.0 for number, key in enumerate(alike)}
        regions = maps[alike[0]]["method"]["regions"]
        made = clusters * (1 + NEW_CLUSTERS * (len(alike) - 1))
        filtered += made * parts.patches * regions["upsample"] ** 2 * regions["median"] ** 2
    votes = _first(
        voting, lambda run: _text([logits_key(run), vote_of(run["method"]), _map_key(run)])
    )
    clusterings = {clustering_key(run["method"]) for run in voting}
    looked_at = DISTANCES * len(rows) + NEAR * len(near) + CLUSTERING * len(clusterings)
    return Counts(
        encoded=_encoding(runs, voting, parts),
        blocks=parts.distances() * len(rows)
        + sum(parts.names(names(run)) for run in logits.values()),
        pairs=parts.patches**2 * looked_at,
        filtered=filtered,
        regions=clusters * pixels * sum(share.values()),
        named=pixels * sum(_upsampled(names(run), tiled) for run in whole),
        voted=pixels * sum(share[_map_key(run)] for run in votes.values()),
    )


def _upsampled(names: int, tiled: bool) -> float:
    """Names that are compared at a pixel, or what takes as long."""
    return TILES + TILED * names if tiled and names > MANY else LEFT * names


def averaged(runs: Iterable[Run], names: Callable[[Run], int]) -> float:
    """Names of the distinct logits that sliding windows are averaged of."""
    different = _first(runs, lambda run: _text([logits_key(run), _voting_regions(run)]))
    return sum(map(names, different.values()))


def slides(run: Run) -> bool:
    return bool(run["protocol"]["name"] == "slide")


def _encoding(runs: list[Run], voting: list[Run], parts: Parts) -> float:
    """Blocks of the encoder, of every variant of its attention, and of the correlations."""
    index = parts.shape.index
    deepest, blocks = 0, parts.embedding
    for run in _first(runs, lambda run: attention_key(run["method"])).values():
        attention = run["method"]["attention"]
        first, last = index(attention["first_block"]), index(attention["last_block"])
        blocks += parts.projection
        if _as_clip_does(attention):
            deepest = max(deepest, last + 1)
        elif attention["kind"] in ONE_PLACE:
            deepest = max(deepest, first)
            blocks += (last + 1 - first) * (parts.qkv + parts.changed(attention))
        else:  # beside the unmodified path
            deepest = max(deepest, last + 1)
            blocks += (last + 1 - first) * parts.changed(attention)
    for run in _first(voting, lambda run: rows_key(run["method"]["regions"])).values():
        deepest = max(deepest, index(run["method"]["regions"]["correlation"]["block"]))
        blocks += parts.qkv + parts.correlation()
    return blocks + deepest


def _as_clip_does(attention: Run) -> bool:
    plain = attention["kind"] == "softmax" and attention["terms"] == ["qk"]
    whole = attention["residual"] and attention["ffn"]
    return plain and whole and attention["omega"] is None and attention["row_sum"] == "none"


def _voting_regions(run: Run) -> Any:
    return None if vote_of(run["method"]) == "none" else run["method"]["regions"]


def _map_key(run: Run) -> str:
    return _text([smoothing_key(run["method"]["regions"]), clustering_key(run["method"])])


def _first(runs: Iterable[Run], key: Callable[[Run], str]) -> dict[str, Run]:
    """The first run of every key."""
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(key(run), run)
    return found


def _grouped(runs: dict[str, Run], key: Callable[[Run], str]) -> Iterable[list[str]]:
    """The names of runs that have the same key."""
    found: dict[str, list[str]] = {}
    for name, run in runs.items():
        found.setdefault(key(run), []).append(name)
    return found.values()


def _text(part: Any) -> str:
    return json.dumps(part, sort_keys=True)
