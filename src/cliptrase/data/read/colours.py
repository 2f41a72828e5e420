"""Masks that show each class in a colour of its own: the table of colours, and labels of pixels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliptrase.errors import UserError, nearest

IGNORED = "ignored"
_COLOUR = r"(\d+)[,;\s]+(\d+)[,;\s]+(\d+)"
_LINES = (re.compile(rf"{_COLOUR}[,;\s]+(.+)"), re.compile(rf"(.+?)[,;\s]+{_COLOUR}"))


@dataclass(frozen=True, eq=False)
class Colours:
    """codes: (N,) int32, R·65536 + G·256 + B, sorted. labels: (N,) int32, the class of each."""

    path: Path
    codes: np.ndarray
    labels: np.ndarray

    def labels_of(self, rgb: np.ndarray, name: str) -> np.ndarray:
        """(H, W) int32 of a mask (H, W, 3) uint8.

        Raises UserError, with `name`, for a colour that the table has not.
        """
        codes = rgb.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
        place = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        strange = self.codes[place] != codes
        if strange.any():
            row, column = np.argwhere(strange)[0]
            raise UserError(
                f"{name}: the colour {','.join(map(str, rgb[row, column]))} of pixel ({column}, "
                f"{row}) is not in {self.path}; add it there, with its class or `{IGNORED}`"
            )
        return self.labels[place]


def read_colours(path: Path | str, classes: Sequence[Sequence[str]], ignore: int) -> Colours:
    """The table of a text file: `R,G,B,class` a line, a class being a name, an index or `ignored`.

    Commas, semicolons and spaces separate; the class may come first if it is a name; a first line
    without numbers is a head. classes: the names of each class. ignore: the label of what is
    ignored. Raises UserError naming the line, also where a class is named as the index of another,
    or `ignored`.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"{path}: cannot be read ({reason})") from error
    index_of = {name: index for index, names in enumerate(classes) for name in names}
    other = {str(index): index for index in range(len(classes))} | {IGNORED: ignore}
    table: dict[int, int] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if not line.strip() or (number == 1 and not re.search(r"\d", line)):
            continue
        if match := _LINES[0].fullmatch(line.strip()):
            *rgb, name = match.groups()
        elif match := _LINES[1].fullmatch(line.strip()):
            name, *rgb = match.groups()
        else:
            raise UserError(f"{where}: {line!r} is not R,G,B,class, as 128,64,0,road")
        red, green, blue = map(int, rgb)
        code = red << 16 | green << 8 | blue
        if max(red, green, blue) > 255 or code in table:
            raise UserError(f"{where}: a colour is three numbers, 0 to 255, and is listed once")
        if name not in index_of | other:
            raise UserError(f"{where}: unknown class {name!r}; {nearest(name, index_of | other)}")
        table[code] = other.get(name, index_of.get(name, ignore))
        if index_of.get(name, table[code]) != table[code]:
            meant = "what is ignored" if name == IGNORED else f"class {name}"
            raise UserError(
                f"{where}: {name!r} is {meant}, and the name of class {index_of[name]}; give that "
                "class another name"
            )
    if not table:
        raise UserError(f"{path}: no colour in this file; write R,G,B,class a line")
    codes = np.array(sorted(table), np.int32)
    return Colours(Path(path), codes, np.array([table[code] for code in sorted(table)], np.int32))
