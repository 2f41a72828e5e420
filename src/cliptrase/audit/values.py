"""Faults of the values: shifted, in another order, wrapped, no class, or the truth itself."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cliptrase.audit.export import Export
from cliptrase.audit.findings import ORDER, SHIFT, TIMES, Finding, cycle, raises
from cliptrase.audit.label_maps import Columns, Labels
from cliptrase.config.kinds import has_background
from cliptrase.errors import counted
from cliptrase.runs.scoring import class_names

MOVED, STAYED = 0.2, 0.05  # IoU of a value with another class, with its own, where names moved
TRUE = 0.9999  # share of pixels that no prediction gets right
WRAPPED = 0.05  # share of the pixels of classes above 255 that hold their class less 256


def findings(
    export: Export, columns: Columns, halves: Sequence[Columns]
) -> tuple[list[Finding], Callable[[int], int]]:
    """What is wrong with the values, and what would mend them. halves: the columns of every
    second image each."""
    found, k, as_is = list[Finding](), export.classes, export.miou(columns)
    pixels = {value: int(column.sum()) for value, column in columns.items()}
    total = sum(pixels.values())
    right = sum(int(columns[value][value]) for value in columns if 0 <= value < k)
    if right > TRUE * total:
        evidence = f"{100 * right / total:.3f} % of the scored pixels are right"
        return [Finding("ground truth given as prediction", evidence, None)], int
    if (wrapped := _wrapped(export, columns)) is not None:
        return [wrapped], int
    shifts = _shifts(export)
    by_shift = {fault: export.miou(columns, shift) for fault, shift in shifts.items()}
    fault = max(by_shift, key=lambda each: by_shift[each])
    mend: Callable[[int], int] = partial(_in_order, {})
    moved = _moved(export, columns, halves)
    in_order = export.miou(columns, partial(_in_order, moved))
    if raises(by_shift[fault], as_is, TIMES, SHIFT) and in_order < TIMES * by_shift[fault]:
        values = f"values {min(columns)} to {max(columns)} of classes 0 to {k - 1}"
        scored = f"mIoU is {as_is:.2f}, and {by_shift[fault]:.2f} with the labels moved back"
        found.append(Finding(fault, f"{values}; {scored}", by_shift[fault]))
        mend = shifts[fault]
    elif moved and raises(in_order, as_is, 1.0, ORDER):
        names = class_names(export.run)
        pairs = [f"{names[v]} is {names[c]}" for v, c in moved.items() if v != c]
        evidence = f"{counted(len(pairs), 'name')} moved: {', '.join(pairs[:5])}"
        evidence += ", …" * (len(pairs) > 5)
        found.append(Finding("another order of classes", evidence, in_order))
        mend = partial(_in_order, moved)
    strays = {v: n for v, n in pixels.items() if not 0 <= mend(v) < k}
    if strays:
        share, most = 100 * sum(strays.values()) / total, max(strays, key=lambda v: strays[v])
        fault = "ignored value predicted" if most in (255, 65535) else "values that are no class"
        evidence = f"{share:.2f} % of the scored pixels, most of them {most}"
        kept = {v: column for v, column in columns.items() if v not in strays}
        found.append(Finding(fault, evidence, export.miou(kept, mend)))
    return found, mend


def _shifts(export: Export) -> dict[str, Callable[[int], int]]:
    """Faults that move all values → what moves one back."""
    k = export.classes
    shifts: dict[str, Callable[[int], int]] = {
        "labels one too high": lambda v: v - 1,
        "labels one too low": lambda v: 0 if v in (255, 65535, -1) and v >= k else v + 1,
    }
    if has_background(export.run):
        shifts["background last, not first"] = lambda v: (v + 1) % k if 0 <= v < k else v
        shifts["background first, not last"] = lambda v: (v - 1) % k if 0 <= v < k else v
    return shifts


def _wrapped(export: Export, columns: Columns) -> Finding | None:
    """Where there are more than 256 classes, and none of those above is ever predicted."""
    k, truth = export.classes, np.sum(list(columns.values()), axis=0)
    if k <= 256 or max(columns) > 255 or not truth[256:].any():
        return None
    hits = sum(int(column[value + 256 :: 256].sum()) for value, column in columns.items())
    above = int(truth[256:].sum())
    if hits < WRAPPED * above:
        return None
    matrix = np.zeros((k, k + 1), np.int64)
    for value, column in columns.items():
        rest = column.copy()
        for label in range(value + 256, k, 256):
            matrix[label, label] += rest[label]
            rest[label] = 0
        matrix[:, value] += rest
    evidence = (
        f"no value above 255 of {k} classes, and {100 * hits / above:.0f} % of the pixels "
        "of classes above hold the class less 256; mended: at most"
    )
    return Finding("wrapped at 256", evidence, export.miou_of(matrix))


def _moved(export: Export, columns: Columns, halves: Sequence[Columns]) -> dict[int, int]:
    """Value → class, where names moved. Either values agree with another class and not with
    their own, in a closed circle, in both halves of the images; or what each half says of all
    values mends the other half."""
    classes, values, iou = _assigned(export, columns)
    by_half = [_assigned(export, half) for half in halves]
    strong = {
        int(value): int(label)
        for label, value in zip(classes, values, strict=True)
        if label != value
        and iou[label, value] > MOVED
        and max(iou[label, label], iou[value, value]) < STAYED
        and all(half[label, value] > 2 * STAYED for _, _, half in by_half)
    }
    sure = any(cycle(strong, value) for value in strong)
    if not sure:
        orders = [dict(zip(v.tolist(), c.tolist(), strict=True)) for c, v, _ in by_half]
        sure = all(
            raises(export.miou(half, partial(_in_order, order)), export.miou(half), TIMES, ORDER)
            for half, order in zip(halves, orders[::-1], strict=True)
        )
    return dict(zip(values.tolist(), classes.tolist(), strict=True)) if sure else {}


def _assigned(export: Export, columns: Columns) -> tuple[Labels, Labels, NDArray[np.float64]]:
    """Classes and values, (K,) each, that agree best in pairs; IoU of every class with every
    value (K, K)."""
    matrix = np.zeros((export.classes, export.classes))
    for value, pixels in columns.items():
        if 0 <= value < export.classes:
            matrix[:, value] = pixels
    union = matrix.sum(axis=1)[:, None] + matrix.sum(axis=0) - matrix
    iou = np.divide(matrix, union, out=np.zeros_like(matrix), where=union > 0)
    return *linear_sum_assignment(-iou), iou


def _in_order(order: Mapping[int, int], value: int) -> int:
    return order.get(value, value)
