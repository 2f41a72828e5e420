"""Rows of one tensor, each made once and found again by what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Memo:
    """Grows by what is asked for and was never made."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._rows: Tensor | None = None  # with room for more

    def __call__(
        self, keys: Sequence[bytes], make: Callable[[Sequence[int]], Tensor]
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """All rows there are, and the place of each key among them; `make` gives those of the keys
        at some positions, which have none yet."""
        known = self._places
        lacking: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            if key not in known:
                lacking.setdefault(key, position)
        if lacking:
            self._add(make(list(lacking.values())), len(known))
            known.update(zip(lacking, range(len(known), len(known) + len(lacking)), strict=True))
        assert self._rows is not None, "no keys"
        return self._rows, np.array([known[key] for key in keys])

    def _add(self, rows: Tensor, used: int) -> None:
        """Twice the room where there is too little, so that a row is moved once on average."""
        if self._rows is None:
            self._rows = rows
            return
        needed = used + len(rows)
        if needed > len(self._rows):
            room = self._rows.new_empty((max(needed, 2 * used), *rows.shape[1:]))
            room[:used] = self._rows[:used]
            self._rows = room
        self._rows[used:needed] = rows


def keys_of(images: NDArray[np.integer], sets: NDArray[np.bool_]) -> list[bytes]:
    """Of each set of patches (S, N) of an image (S,), something that only an equal one has."""
    which = images.astype("<u4").view(np.uint8).reshape(-1, 4)
    both = np.concatenate([which, np.packbits(sets, axis=1)], axis=1)
    return both.view(f"V{both.shape[1]}").reshape(-1).tolist()
