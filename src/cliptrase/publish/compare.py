"""Runs in pairs: whether they may be compared, and the difference, paired image by image.

On each side stands one run of each row, or for an average one of each benchmark.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from cliptrase.config.error_names import OF_LOGITS
from cliptrase.publish.results import FinishedRun, Values
from cliptrase.runs import bootstrap
from cliptrase.runs.provenance import COMPUTING

SHORT = 10  # digits of a digest, as of a commit


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
