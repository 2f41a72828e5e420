"""What may be compared with what: runs in pairs, and the lines of a table side by side."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cliptrase.config.error_names import OF_LOGITS
from cliptrase.plan.tables import in_words
from cliptrase.publish.results import FinishedRun, Values
from cliptrase.runs import bootstrap
from cliptrase.runs.provenance import COMPUTING

if TYPE_CHECKING:
    import pandas as pd  # half a second: not for what compares runs alone

SHORT = 10  # digits of a digest, as of a commit

# --- runs in pairs: one run of each row, or for an average one a benchmark ------------------------


def mean_value(runs: Sequence[FinishedRun], metric: str) -> float | None:
    """The mean of a metric over runs of several benchmarks, None where one has no value."""
    values = [value for run in runs if (value := run.value(metric)) is not None]
    return sum(values) / len(values) if values and len(values) == len(runs) else None


def mean_resampled(runs: Sequence[FinishedRun], metric: str) -> Values:
    """The same in each resample, (1000,)."""
    return np.mean([run.in_resamples(metric) for run in runs], axis=0)


def paired_difference(
    runs: Sequence[FinishedRun], others: Sequence[FinishedRun], metric: str
) -> tuple[float, float, float] | None:
    """The mean of `runs` minus that of `others`, with its interval from the same resamples; None
    where one has no value, or nothing is resampled."""
    value, other = mean_value(runs, metric), mean_value(others, metric)
    if value is None or other is None or metric in OF_LOGITS:
        return None
    resampled, others_resampled = mean_resampled(runs, metric), mean_resampled(others, metric)
    return bootstrap.difference(value, resampled, other, others_resampled)


def why_no_pair(runs: Sequence[FinishedRun], others: Sequence[FinishedRun]) -> str:
    """Why the two cannot be compared image by image, or nothing."""
    if other_code := different_code([*runs, *others]):
        return other_code
    pairs = zip(runs, others, strict=True)
    if any(run.image_list != other.image_list for run, other in pairs):
        return "the two rows are of other images"
    return ""


def different_code(runs: Sequence[FinishedRun]) -> str:
    """Says so where runs that are compared were not all made by the same code."""
    codes = sorted(different_digests(run.code for run in runs))
    return f"the runs were made by different code, {' and '.join(codes)}" if codes else ""


def different_digests(codes: Iterable[str]) -> list[str]:
    """The digests that differ, shortened, in order of appearance: of the prediction code, else of
    the scoring code; none where all runs are of one code."""
    for digests in zip(*(code.split() for code in codes), strict=True):
        different = list(dict.fromkeys(digests))
        if different[1:]:
            return [digest[:SHORT] for digest in different]
    return []


def different_versions(runs: Sequence[FinishedRun]) -> str:
    """Says so where runs that are compared were made with other versions of what computes."""
    differences = []
    for package in COMPUTING:
        versions = dict.fromkeys(run.versions.get(package) or "unknown" for run in runs)
        if len(versions) > 1:
            differences.append(f"{package} {' and '.join(versions)}")
    return f"made under other versions: {', '.join(differences)}" if differences else ""


# --- lines side by side --------------------------------------------------------------------------


class Comparable(NamedTuple):
    """Lines of one protocol, under one choice of its settings (`slide(short_side=448)`), and of one
    metric rule. Columns, and groups of bars, are of one of these; `title` tells it from the others.
    """

    protocol: str
    rule: str
    title: str
    lines: "pd.DataFrame"


def comparables(frame: "pd.DataFrame") -> list[Comparable]:
    """The lines of a table that may stand side by side, in order of appearance, but for the quoted.

    A row of another rule than most stands with the others only where the row itself sets
    `protocol.rule`: two rules are then compared on purpose.
    """
    lines = frame[frame["kind"] != "quoted"]
    first = lines.sort_values("chooses_rule", kind="stable").drop_duplicates("protocol")
    usual = lines["protocol"].map(dict(zip(first["protocol"], first["rule"], strict=True)))
    rules = lines["rule"].mask(lines["chooses_rule"], usual)
    groups = list(lines.groupby([lines["protocol"], rules], sort=False))
    several_rules = len({protocol for (protocol, _), _ in groups}) < len(groups)
    blocks = []
    for (protocol, rule), part in groups:
        words = " and ".join(in_words(each) for each in protocol.split())
        title = f"protocol {words}" + f", rule {rule}" * several_rules
        blocks.append(Comparable(protocol, rule, title if len(groups) > 1 else "", part))
    return blocks
