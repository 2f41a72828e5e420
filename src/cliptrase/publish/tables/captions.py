"""What stands above and below a table: its facts, how to read it, what to know of its numbers."""

from collections.abc import Iterable

import pandas as pd

from cliptrase.config.error_names import CATEGORIES
from cliptrase.config.metric_names import LOST
from cliptrase.errors import counted
from cliptrase.plan.files import SUMMARIES
from cliptrase.publish.compare import different_digests
from cliptrase.publish.tables.cells import missing
from cliptrase.runs.ledger import ORACLES

NEAR_BEST = "≈"


def facts(suite: str, frame: pd.DataFrame) -> tuple[str, ...]:
    """What the whole table has in common: suite, model, protocol, rule, size."""
    lines = frame[~frame["kind"].isin(["quoted", "avg"])]
    values = {key: ", ".join(texts(lines[key])) for key in ("model", "protocol", "rule")}
    common = [f"{key} {value}" for key, value in values.items() if value]
    return (f"suite {suite}", *common, *sizes_of(lines))


def sizes_of(frame: pd.DataFrame) -> list[str]:
    """`224 px`; `windows of 224 px, short side 336 (560 on cityscapes19), stride 112`."""
    lines = frame[~frame["kind"].isin(["quoted", "avg"])]
    crops, windows = lines[lines["short_side"].isna()], lines[lines["short_side"].notna()]
    sizes = [f"{_and(crops['image_size'])} px"] if len(crops) else []
    if len(windows):
        sides, stride = _short_sides(windows), _and(windows["stride"])
        size = _and(windows["image_size"])
        sizes.append(f"windows of {size} px, short side {sides}, stride {stride}")
    return sizes


def _short_sides(windows: pd.DataFrame) -> str:
    """What most benchmarks have, and in brackets which have another."""
    sides = windows.groupby("benchmark", sort=False)["short_side"].agg(_and).to_dict()
    usual = max(sides.values(), key=list(sides.values()).count)
    others = [f"{side} on {name}" for name, side in sides.items() if side != usual]
    return usual + (f" ({', '.join(others)})" if others else "")


def _and(numbers: pd.Series) -> str:
    return " and ".join(str(number) for number in sorted(numbers.dropna().unique()))


PAIRED = "Differences are paired"


def reading(kind: str) -> str:
    """How to read a cell."""
    best = "the grid" if kind == "grid" else "its column among the rows it stands with"
    return (
        "Value ± half the width of its 95 % bootstrap interval over images; the interval is not "
        f"symmetric, and the CSV has its ends. Bold: the best of {best}."
    )


def remarks_of(frame: pd.DataFrame) -> list[str]:
    """What a reader must know of the numbers as a whole."""
    remarks = []
    if frame["diff"].notna().any():
        remarks.append(
            f"{PAIRED}, image by image, each above its 95 % bootstrap interval. "
            f"{NEAR_BEST} The interval holds 0: the difference is not significant."
        )
    if (frame["metric"] == LOST).any():
        remarks.append(
            f"{LOST}: the per cent of scored pixels that a distractor got, a name of no class."
        )
    if frame["kind"].isin(SUMMARIES).any():
        remarks.append(f"{', '.join(SUMMARIES)}: of the rows above, column by column.")
    if frame["metric"].isin(CATEGORIES).any():
        remarks.append(
            "pAcc and the wrong pixels are per cent of the scored pixels and add up to 100: each "
            "wrong pixel is in the first category that fits (docs/errors.md)."
        )
    if frame["metric"].isin(ORACLES).any():
        remarks.append(
            "Oracles, which know the ground truth: true_regions is mIoU of the method's most "
            "frequent label in each true region, true_names that of its own regions under their "
            "most frequent true class."
        )
    if frame["near_best"].any():
        remarks.append(
            f"{NEAR_BEST} at a value: its difference to the best of the column is not significant. "
            "A row is marked where its average is."
        )
    if vocabularies := _vocabularies(frame[frame["run"] != ""]):
        remarks.append(f"Vocabulary and images of each benchmark: {vocabularies}.")
    if commits := texts(frame["commit"]):
        remarks.append(f"Commit of the runs: {', '.join(commits)}.")
    if codes := different_digests(texts(frame["code"])):
        remarks.append(
            f"These runs were made by different code ({', '.join(codes)}): numbers of one are not "
            "compared with those of another; make the runs again by one code."
        )
    gone, wanted, _ = missing(frame)
    if gone:
        verb = "is" if gone == 1 else "are"
        remarks.append(f"{gone} of {counted(wanted, 'cell')} {verb} missing.")
    return remarks


def _vocabularies(lines: pd.DataFrame) -> str:
    """Each benchmark's vocabulary and images; where rows differ, whose the others are."""
    parts = []
    for benchmark, scored in lines.groupby("benchmark", sort=False):
        rows = scored.groupby("vocabulary", sort=False)["row"].unique()
        usual = rows.map(len).idxmax()
        counts = sorted(scored["images"].dropna().unique())
        word = "image" if counts == [1] else "images"
        images = f", {' or '.join(f'{count:,}' for count in counts)} {word}" if counts else ""
        parts.append(f"{benchmark}: {usual}{images}")
        parts += [
            f"{benchmark} in {', '.join(names)}: {vocabulary}"
            for vocabulary, names in rows.drop(usual).items()
        ]
    return "; ".join(parts)


def texts(column: Iterable[str]) -> list[str]:
    """The different texts of a column that are not empty, in order of appearance."""
    return [text for text in dict.fromkeys(column) if text]
