"""Panoptic Cut, patch by patch: SciPy's generalised eigenproblem, neighbours visited one by one.

Written from the formula in float64; shares no line with the package.
"""

import numpy as np
from scipy.linalg import eigh


class NotUnique(Exception):
    """The second smallest eigenvalue is the third as well: any mix of their vectors is one."""


def second_vector(weights: np.ndarray) -> np.ndarray:
    """Of (D − E)·y = λ·D·y; the entry of the largest magnitude is positive. Raises NotUnique."""
    degrees = np.diag([sum(row) for row in weights])
    values, vectors = eigh(degrees - weights, degrees)
    if len(values) > 2 and values[2] - values[1] < 1e-6 * values[2]:
        raise NotUnique
    return vectors[:, 1] * np.sign(vectors[first_largest(abs(vectors[:, 1])), 1])


def first_largest(values: np.ndarray) -> int:
    """The first of the largest, where what differs by rounding alone is equal."""
    return int(np.round(values / max(abs(values)), 7).argmax())


def connected(members: set[int], start: int, columns: int) -> set[int]:
    """The members that are reached from `start` in steps to the four sides."""
    reached, front = {start}, [start]
    while front:
        y, x = divmod(front.pop(), columns)
        for row, column in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            place = row * columns + column
            if 0 <= column < columns and place in members - reached:
                reached.add(place)
                front.append(place)
    return reached


def cut_slowly(
    cosines: np.ndarray, grid: tuple[int, int], threshold: float = 0.3, most: int = 8
) -> list[int]:
    """The mask of each patch, of which cosines (N, N) are given. Raises NotUnique."""
    rows, columns = grid
    corners = (0, columns - 1, (rows - 1) * columns, rows * columns - 1)
    free = list(range(rows * columns))
    masks: list[set[int]] = []
    while len(masks) < most and len(free) > 5:
        alike = [[cosines[i, j] > threshold for j in free] for i in free]
        if all(all(row) for row in alike):
            break
        y = second_vector(np.where(alike, 1.0, 1e-5))
        above = [value - sum(y) / len(y) > 1e-7 * max(abs(y)) for value in y]
        part = {i for i, more in zip(free, above, strict=True) if more}
        if sum(corner in part for corner in corners) >= 3:
            y, part = -y, set(free) - part
        mask = connected(part, free[first_largest(y)], columns)
        masks.append(mask)
        free = [i for i in free if i not in mask]
    masks += [set(free)] if free else []
    return [next(k for k, mask in enumerate(masks) if i in mask) for i in range(rows * columns)]
