"""What a sweep ends in: a line a point, with its best, as text, CSV and JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliptrase.config.metric_names import METRICS
from cliptrase.errors import UserError
from cliptrase.files import sha256_text, write_text
from cliptrase.runs import store

BY = "mIoU"  # what the best point is best by


def lines_of(
    points: Sequence[Sequence[str]], outcomes: Sequence[Path | UserError]
) -> list[dict[str, Any]]:
    """A line a point, in order: its overrides, and the scores of its run or its error; whether it
    is the best of its benchmark."""
    lines = []
    for point, outcome in zip(points, outcomes, strict=True):
        line: dict[str, Any] = {"overrides": dict(_pairs(point))}
        if isinstance(outcome, Path):
            metrics = store.read_metrics(outcome)
            line |= {"run": outcome.name, "folder": str(outcome)}
            line |= {key: metrics[key] for key in (*METRICS, "ci", "rule", "images")}
        else:
            line["error"] = str(outcome)
        lines.append(line)
    best: dict[str | None, float] = {}  # by benchmark
    for line in lines:
        name, value = line["overrides"].get("benchmark"), line.get(BY)
        if value is not None:
            best[name] = max(value, best.get(name, value))
    for line in lines:
        value = line.get(BY)
        line["best"] = value is not None and value == best[line["overrides"].get("benchmark")]
    return lines


def _pairs(point: Sequence[str]) -> list[tuple[str, str]]:
    pairs = (override.partition("=") for override in point)
    return [(key.strip(), value.strip("'\"")) for key, _, value in pairs]


def swept(lines: Sequence[dict[str, Any]]) -> list[str]:
    """The keys whose value is not the same at all points."""
    keys = dict.fromkeys(key for line in lines for key in line["overrides"])
    return [key for key in keys if len({line["overrides"].get(key) for line in lines}) > 1]


def as_text(lines: Sequence[dict[str, Any]]) -> str:
    """Aligned columns: what was swept, the score with its interval, the best marked."""
    keys = swept(lines)
    rows = [[*keys, BY, "95 % interval", ""]]
    for line in lines:
        values = [line["overrides"].get(key, "") for key in keys]
        value, (low, high) = line.get(BY), line.get("ci", {}).get(BY, (None, None))
        score = ["failed" if "error" in line else "–", ""]
        if value is not None:
            score = [f"{value:.2f}", "" if low is None else f"[{low:.2f}, {high:.2f}]"]
        rows.append([*values, *score, "best" * line["best"]])
    wide = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, wide, strict=True)).rstrip()
        for row in rows
    )


def write(points: Sequence[Sequence[str]], lines: Sequence[dict[str, Any]]) -> list[Path]:
    """Write sweeps/<digest>.csv and .json, named after the points: beside results/runs, or in
    another folder of runs."""
    import pandas as pd  # half a second: only of sweeps

    out = next(Path(line["folder"]) for line in lines if "folder" in line).parent
    folder = out.parent if out.name == "runs" else out
    name = sha256_text(json.dumps(list(map(list, points))))[:10]
    keys = swept(lines)
    rows = [
        {
            **{key: line["overrides"].get(key) for key in keys},
            **{key: line.get(key) for key in (*METRICS, "rule", "images", "run", "best", "error")},
        }
        for line in lines
    ]
    for row, line in zip(rows, lines, strict=True):
        for metric in METRICS:
            row[f"{metric}_low"], row[f"{metric}_high"] = line.get("ci", {}).get(
                metric, (None, None)
            )
    csv, as_json = (folder / "sweeps" / f"{name}.{kind}" for kind in ("csv", "json"))
    write_text(csv, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    write_text(as_json, json.dumps(list(lines), indent=1, ensure_ascii=False) + "\n")
    return [csv, as_json]
