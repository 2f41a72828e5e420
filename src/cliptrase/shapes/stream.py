"""Random numbers that are the same bit for bit on every machine and with every NumPy.

Only the raw output of PCG64 is used: NumPy keeps that stable for ever, and not its distributions.
"""

import numpy as np

_TO_UNIT = 2.0**-53


class Stream:
    """A stream of random numbers named by a seed and a purpose, so that purposes never interfere.

    Values handed out singly are Python numbers: a NumPy float64 scalar would turn float32
    images into float64 ones.
    """

    def __init__(self, seed: int, purpose: int = 0) -> None:
        self._bits = np.random.PCG64([seed, purpose])

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """One number in [low, high)."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * _TO_UNIT)

    def integer(self, bound: int) -> int:
        """One integer in [0, bound)."""
        return int(self.uniform() * bound)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def uniforms(self, *shape: int) -> np.ndarray:
        """Numbers in [0, 1], float32, of this shape."""
        raw = self._bits.random_raw(int(np.prod(shape)))
        return ((raw >> np.uint64(11)) * _TO_UNIT).astype(np.float32).reshape(shape)

    def pick(self, weights: tuple[float, ...]) -> int:
        """An index, with these weights (they need not sum to 1)."""
        at = self.uniform() * sum(weights)
        for index, weight in enumerate(weights):
            at -= weight
            if at < 0:
                return index
        return len(weights) - 1

    def sample(self, bound: int, count: int) -> list[int]:
        """`count` different integers of [0, bound), in random order."""
        left = list(range(bound))
        return [left.pop(self.integer(len(left))) for _ in range(count)]
