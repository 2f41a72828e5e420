"""A pass cut into shards: each counts a part of the images, in a process of its own, on this
machine or another one."""

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cliptrase.errors import UserError


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `count` parts of the images, counted from 1."""

    number: int
    count: int

    @classmethod
    def of(cls, text: str) -> Self:
        """The shard that "2/7" names. Raises UserError for what names none."""
        if (match := re.fullmatch(r"([1-9][0-9]*)/([1-9][0-9]*)", text)) is not None:
            number, count = int(match[1]), int(match[2])
            if number <= count:
                return cls(number, count)
        raise UserError(f"--shard {text}: must be a shard such as 2/7, or 7/7 at most")

    def images(self, total: int) -> range:
        """The positions of its images among `total`; shards differ by one image at most."""
        first, stop = (total * at // self.count for at in (self.number - 1, self.number))
        return range(first, stop)

    def file(self, pass_file: Path) -> Path:
        """Where its counts are, beside the file of its pass."""
        return pass_file.with_name(f"{pass_file.stem}.shard-{self.number}-of-{self.count}.npz")


WHOLE = Shard(1, 1)


def shards_of(count: int) -> list[Shard]:
    """All shards of a pass that is cut into so many."""
    return [Shard(number, count) for number in range(1, count + 1)]


def written(pass_file: Path) -> list[Path]:
    """The counts beside the file of a pass, of however many shards it was cut into; also those that
    were saved under way, of a shard that was killed when its counts were written."""
    shard = f"{glob.escape(pass_file.stem)}.shard-*-of-*"
    patterns = (f"{shard}.npz", f".{shard}.partial.npz")
    return sorted(file for pattern in patterns for file in pass_file.parent.glob(pattern))
