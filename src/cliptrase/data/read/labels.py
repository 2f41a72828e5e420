"""From the raw label values of an archive to the classes that a benchmark scores.

A table in text (`labels/<map>.csv`, columns raw and class) becomes an array once; it is applied to
the label maps after the nearest resize.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliptrase.config.schema import Labels
from cliptrase.errors import UserError, counted, nearest

TABLES = Path(__file__).parents[1] / "labels"
RAW_VALUES = 65536
_REFUSED = -1


class WrongNumber(UserError):
    """A list of another number of names than the table scores."""


@dataclass(frozen=True, eq=False)
class Lookup:
    """What each raw value becomes.

    table: (65536,) int32: a class, `ignore`, or -1 for a raw value that no mask may hold.
    classes: C, the number of names; background, where a benchmark has it, is class C.
    first, ignored: the raw values of class 0 and of what is ignored, where they are indices.
    skip: an image whose crop is wholly of this class is left out; None: no image is.
    """

    table: np.ndarray
    classes: int
    ignore: int
    skip: int | None
    first: int = 0
    ignored: int | None = None


def read_table(name: str) -> dict[int, int]:
    """Raw value → class, of a shipped table. Raises UserError for an unknown or a wrong table."""
    path = TABLES / f"{name}.csv"
    if not path.is_file():
        raise UserError(
            f"unknown labels.map {name!r}; {nearest(name, (p.stem for p in TABLES.glob('*.csv')))}"
        )
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if not lines or lines[0] != ["raw", "class"]:
        raise UserError(f"{path}: the first line must be raw,class")
    table: dict[int, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            raw, target = map(int, line)
        except ValueError:
            raise UserError(f"{path}: line {number} must be two whole numbers, raw,class") from None
        if raw in table or not 0 <= raw < RAW_VALUES or target < 0:
            raise UserError(f"{path}: line {number}: raw {raw} is doubled or out of range")
        table[raw] = target
    return table


def lookup(labels: Labels, n_classes: int) -> Lookup:
    """The lookup table of a benchmark's `labels` for a list of `n_classes` names.

    `map` names a table: raw values that it does not list are ignored. `map: null` takes the raw
    values as class indices: what is neither a class nor `ignore` is then an error of `apply`.
    `background: [raw, …]` makes those raw values class C. (`background: ignored` is the released
    code's: `background_from_ignored` does it, after the skip test.) A table has as many classes as
    there are names, except with `scored: N`, where only its first N classes have names: the
    paper's COCO-Object scores 80 of 171 classes so. `skip`, where it is not `ignore` itself, is the
    value that the skip test looks for, or "none": no image is skipped.

    Raises UserError naming the key.
    """
    ignore, background = labels.ignore, labels.background
    first = int(labels.reduce_zero_label)
    ignored = ignore if labels.ignored is None else labels.ignored
    if labels.map is None:
        if first <= ignored < first + n_classes:
            cure = "save the masks with 16 bits"
            if labels.ignored is not None:
                cure = "take a value that no class has"
                if ignored == 0:
                    cure = "give benchmark.reduce_zero_label=true where label 1 is the first class"
            raise UserError(f"{n_classes} classes, but label {ignored} means ignored; {cure}")
        table = np.full(RAW_VALUES, _REFUSED, dtype=np.int32)
        table[first : first + n_classes] = np.arange(n_classes)
        table[[ignored, *range(first)]] = ignore
    else:
        table = np.full(RAW_VALUES, ignore, dtype=np.int32)
        class_of = read_table(labels.map)
        table[list(class_of)] = list(class_of.values())
        count = labels.scored or max(class_of.values(), default=-1) + 1
        if n_classes != count:
            raise WrongNumber(
                f"labels.map={labels.map}: {counted(count, 'scored class')}, but the vocabulary "
                f"has {counted(n_classes, 'line')}; give a list of {count}, one class a line"
            )
        if ignore in class_of.values():
            raise UserError(f"labels.ignore={ignore}: a class of {labels.map}; take 65535")
    if isinstance(background, tuple):
        if n_classes == ignore:
            raise UserError(f"labels.ignore={ignore}: is the index of the background; take 65535")
        table[list(background)] = n_classes
    skip = ignore if labels.skip is None else labels.skip
    left_out = None if skip == "none" else int(skip)
    return Lookup(table, n_classes, ignore, left_out, first, ignored)


def apply(lookup: Lookup, raw: np.ndarray, source: str = "label map") -> np.ndarray:
    """Classes of raw values, any shape, as int32: 0..C-1, `ignore`, or C for listed background.

    Raises UserError naming `source`, the value and the number of classes.
    """
    if raw.size and (raw.min() < 0 or raw.max() >= RAW_VALUES):
        raise UserError(_stray(lookup, int(raw.min() if raw.min() < 0 else raw.max()), source))
    classes = lookup.table[raw]
    if classes.size and classes.min() == _REFUSED:
        raise UserError(_stray(lookup, int(raw[classes == _REFUSED].min()), source))
    return classes


def skipped(lookup: Lookup, classes: np.ndarray) -> bool:
    """Whether the protocol leaves out an image with this cropped ground truth.

    Released code: the largest label is dropped if it is 255, and an image with no label left is
    skipped. 65535 counts as -1 there, so with 16 bits (`skip: 255` of pc459 and ade847) a crop of
    nothing but class 255 goes, and one of nothing but 65535 is kept and adds nothing. It comes
    before background is made of ignored pixels, so pure-background crops go too.
    """
    return lookup.skip is not None and bool((classes == lookup.skip).all())


def background_from_ignored(lookup: Lookup, classes: np.ndarray) -> np.ndarray:
    """The same map with class C wherever it was `ignore`: `background: ignored`."""
    return np.where(classes == lookup.ignore, np.int32(lookup.classes), classes)


def background_first(lookup: Lookup, classes: np.ndarray) -> np.ndarray:
    """The same map with the background, class C, as class 0 and class i as i + 1.

    What is neither (ignored, or a class of the table that has no name) becomes -1.
    """
    count = lookup.classes + 1
    return np.where(classes < count, (classes + 1) % count, np.int32(-1))


def _stray(lookup: Lookup, value: int, source: str) -> str:
    ignored = lookup.ignore if lookup.ignored is None else lookup.ignored
    first = lookup.first
    cure = "list more names or correct the mask"
    if value == 255 and ignored != 255:
        cure = f"ignored pixels are {ignored} here (benchmark.ignore)"
        if ignored == RAW_VALUES - 1:
            cure = "with 16 bits, ignored pixels are 65535"
    classes = f"one of the {lookup.classes} classes ({first} to {first + lookup.classes - 1})"
    if lookup.classes == 1:
        classes = f"the only class ({first})"
    return f"{source}: label {value} is neither {classes} nor the ignored value {ignored}; {cure}"
