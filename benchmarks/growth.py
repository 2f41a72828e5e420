"""How the cost grows with images, classes, size, clusters, threads: `python -m benchmarks.growth`.

Writes results/bench/growth.json, growth.md and growth.svg in some 5 minutes on 2 cores that nothing
else uses: ViT-B/16 with random weights, one process, what is compared takes turns, medians with
the least and the most. `--quick` does the same with a tiny model: its numbers mean nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import command, growth_picture
from benchmarks.command import log, upto
from benchmarks.per_image import MIDDLE, Setting, by_clusters, throughput
from benchmarks.report import quick
from benchmarks.scenery import Eps, Models, models
from benchmarks.timing import package_way, parts_of, ratios, spread, taking_turns

SIZES = (224, 336, 448)
CLASSES = (20, 60, 171, 459, 847)
TEXTURES = (2, 4, 8, 16, 32)
POOL = 8  # pictures that eps is set on


def growth(
    models: Models, eps: dict[int, Eps], pictures: int, rounds: int, threads: int
) -> dict[str, Any]:
    """Everything, at each size that `models` has an encoder and `eps` a value for.

    All but size at the smallest of them. `pictures` in each measurement, in the one by images up to
    8 times as many.
    """
    sizes = [size for size in models.encoders if size in eps]
    settings = [Setting.of(models, eps[size], pictures, rounds, threads) for size in sizes]
    smallest = settings[0]
    found: dict[str, Any] = {
        "by_images": told("images", by_images(smallest, [pictures * k for k in (1, 2, 4, 8)])),
        "by_classes": told("classes", by_classes(smallest, CLASSES)),
        "by_size": told("size", by_size(settings)),
        "by_clusters": told("clusters", _by_number(by_clusters(_more(smallest), TEXTURES))),
        "by_threads": [],
    }
    if models.clip.device.type == "cpu":
        found["by_threads"] = told("threads", by_threads(smallest, upto(threads)))
    found["each_more"] = {
        "image_ms": slope((one["images"], 1000 * _median(one, "s")) for one in found["by_images"]),
        "class_ms": slope((one["classes"], _median(one, "ms")) for one in found["by_classes"]),
        "cluster_ms": slope(
            (float(np.median(one["clusters"])), _median(one, "regions_ms"))
            for one in found["by_clusters"]
        ),
    }
    return found | {"pictures": pictures, "rounds": rounds, "threads": threads, "size": sizes[0]}


def by_images(setting: Setting, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Seconds of CLIPtrase on so many pictures."""
    way = package_way(setting.models.clip.device, setting.threads)
    turns = {
        str(count): dataclasses.replace(setting, pictures=count).cliptrase(MIDDLE, way)
        for count in counts
    }
    turns[str(counts[0])]()  # what begins slowly, begins here
    seconds = taking_turns(turns, setting.rounds, warm_up=False)
    return [
        {
            "images": count,
            "s": spread(seconds[str(count)]),
            "ms_an_image": spread(1000 * s / count for s in seconds[str(count)]),
        }
        for count in counts
    ]


def by_classes(setting: Setting, classes: Sequence[int]) -> list[dict[str, Any]]:
    """Milliseconds an image of CLIPtrase and of the bare encoder in the same rounds and ways."""
    way = package_way(setting.models.clip.device, setting.threads)
    calls: dict[int, list[dict[str, float]]] = {k: [] for k in classes}
    turns = {"": setting.encoder(way)}
    turns |= {str(k): setting.cliptrase(k, way, calls[k]) for k in classes}
    seconds = taking_turns(turns, setting.rounds)
    share = 1000 / setting.pictures
    return [
        {
            "classes": k,
            "ms": spread(share * s for s in seconds[str(k)]),
            "encoder_ms": spread(share * s for s in seconds[""]),
            "ratio": spread(ratios(seconds[str(k)], seconds[""])),
            "thread_ms": parts_of(calls[k], share),
        }
        for k in classes
    ]


def by_size(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """Milliseconds an image of the bare encoder and of CLIPtrase at each size."""
    turns: dict[str, Callable[[], float]] = {}
    for one in settings:
        way = package_way(one.models.clip.device, one.threads)
        turns[f"encoder {one.size}"] = one.encoder(way)
        turns[f"cliptrase {one.size}"] = one.cliptrase(MIDDLE, way)
    seconds, found = taking_turns(turns, settings[0].rounds), []
    for one in settings:
        bare, whole = (seconds[f"{who} {one.size}"] for who in ("encoder", "cliptrase"))
        share = 1000 / one.pictures
        found.append(
            {
                "size": one.size,
                "patches": (one.size // one.models.clip.patch) ** 2,
                "encoder_ms": spread(share * s for s in bare),
                "ms": spread(share * s for s in whole),
                "ratio": spread(ratios(whole, bare)),
            }
        )
    return found


def by_threads(setting: Setting, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Images a second, one image a thread."""
    found = throughput(setting, counts, ())
    pairs = zip(found["encoder"].values(), found["cliptrase"].values(), strict=True)
    return [
        {"threads": count, "encoder_rate": encoder, "rate": whole}
        for count, (encoder, whole) in zip(counts, pairs, strict=True)
    ]


def slope(points: Iterator[tuple[float, float]]) -> float:
    """What one more costs: least squares."""
    x, y = zip(*points, strict=True)
    return round(float(np.polyfit(x, y, 1)[0]), 3) if len(set(x)) > 1 else 0.0


def markdown(found: dict[str, Any]) -> str:
    """One table: what grows, and what it costs at each step."""
    size, each = found["size"], found["each_more"]
    first, last = (found["by_classes"][k] for k in (0, -1))
    lines = ["| what grows | from … to | measured | one more |", "|---|---|---|---|"]

    def row(what: str, steps: Sequence[Any], cells: Sequence[str], more: str) -> None:
        lines.append(f"| {what} | {' · '.join(map(str, steps))} | {' · '.join(cells)} | {more} |")

    def steps(key: str, of: str) -> list[Any]:
        return [one[of] for one in found[key]]

    row(
        f"images ({size} px, {MIDDLE} classes, {found['threads']} threads), s",
        steps("by_images", "images"),
        [_span(one["s"], 2) for one in found["by_images"]],
        f"{each['image_ms']:.0f} ms an image",
    )
    row(
        f"classes ({size} px), ms an image",
        steps("by_classes", "classes"),
        [_span(one["ms"], 0) for one in found["by_classes"]],
        f"{each['class_ms']:.3f} ms a class",
    )
    row(
        "the same / bare encoder",
        steps("by_classes", "classes"),
        [_span(one["ratio"], 2) for one in found["by_classes"]],
        f"{first['ratio']['median']:.2f} → {last['ratio']['median']:.2f}",
    )
    for key, what, digits in (
        ("encoder_ms", "size: bare encoder, ms an image", 0),
        ("ms", f"size: CLIPtrase, {MIDDLE} classes, ms an image", 0),
        ("ratio", "the same / bare encoder", 2),
    ):
        row(
            what,
            [f"{one['size']} px" for one in found["by_size"]],
            [_span(one[key], digits) for one in found["by_size"]],
            f"patches^{_power(found['by_size'], key):.2f}",
        )
    row(
        f"clusters ({size} px, one thread): regions, ms an image",
        [f"{np.median(one['clusters']):.0f}" for one in found["by_clusters"]],
        [_span(one["regions_ms"], 1) for one in found["by_clusters"]],
        f"{each['cluster_ms']:.2f} ms a cluster",
    )
    for key, who in (("encoder_rate", "bare encoder"), ("rate", "CLIPtrase")):
        if found["by_threads"]:
            rates = [one[key] for one in found["by_threads"]]
            gain = rates[-1]["median"] / rates[0]["median"]
            row(
                f"threads ({size} px): {who}, images a second",
                steps("by_threads", "threads"),
                [_span(one, 2) for one in rates],
                f"× {gain:.2f}",
            )
    return "\n".join([*quick(found), *lines, ""])


def _more(setting: Setting) -> Setting:
    """`by_clusters` looks at a picture a round, and one more."""
    return dataclasses.replace(setting, rounds=max(setting.pictures - 1, setting.rounds))


def _by_number(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """From few clusters to many: more textures than patches can tell apart are fewer clusters."""
    return sorted(found, key=lambda one: float(np.median(one["clusters"])))


def _median(one: dict[str, Any], key: str) -> float:
    return float(one[key]["median"])


def _power(found: Sequence[dict[str, Any]], key: str) -> float:
    """The exponent with which something grows in the number of patches."""
    if len(found) < 2:
        return 0.0
    patches, values = ([float(x) for x in xs] for xs in zip(*_pairs(found, key), strict=True))
    return float(np.polyfit(np.log(patches), np.log(values), 1)[0])


def _pairs(found: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(one["patches"], _median(one, key)) for one in found]


def _span(one: dict[str, float], digits: int) -> str:
    median, low, high = (f"{one[key]:.{digits}f}" for key in ("median", "min", "max"))
    return median if low == high else f"{median} <sub>{low} – {high}</sub>"


def told(what: str, result: Any) -> Any:
    """The result, after a line about it."""
    log.info("growth by %s: %s", what, json.dumps(result))
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.options("benchmarks.growth", __doc__, arguments)
    about = command.about(options)
    pictures, rounds, pool = (1, 1, 2) if options.quick else (8, 3, POOL)
    loaded = models(options.quick, sizes=SIZES)
    eps = {size: Eps.of(loaded.clip, size, pool) for size in SIZES}
    found = growth(loaded, eps, pictures, rounds, options.threads)
    found["about"] = about
    command.write(options.out, "growth", found, markdown(found))
    growth_picture.draw(found, options.out / "growth.svg")


if __name__ == "__main__":
    main()
