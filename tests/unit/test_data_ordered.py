"""Work by a few threads: in order, a few items ahead, errors in their turn."""

from __future__ import annotations

import threading
import time

import pytest

from cliptrase.data.read.ordered import in_order


class Busy:
    """Counts the threads that are in `make` at once."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        self.by: set[str] = set()

    def __call__(self, item: int) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.by.add(threading.current_thread().name)
        time.sleep(0.002 * (item % 3))
        with self.lock:
            self.now -= 1
        return item * item


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_no_more_threads_than_asked_for_are_busy(workers):
    busy = Busy()
    assert list(in_order(busy, range(60), workers)) == [item * item for item in range(60)]
    assert busy.most <= workers and len(busy.by) <= workers


def test_two_workers_do_two_things_at_once():
    """Each of two items ends only when the other has begun."""
    both = threading.Barrier(2, timeout=60)
    assert list(in_order(lambda item: both.wait() >= 0, range(2), 2)) == [True, True]


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_is_begun_than_a_few_items_ahead(workers):
    begun = []
    for taken, _ in enumerate(in_order(begun.append, range(50), workers)):
        assert len(begun) <= taken + workers + 3


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_an_error_comes_in_its_turn(workers):
    def make(item: int) -> int:
        if item >= 3:
            raise ValueError(f"item {item}")
        return item

    taken = []
    with pytest.raises(ValueError, match="item 3"):
        for made in in_order(make, range(20), workers):
            taken.append(made)
    assert taken == [0, 1, 2]


def test_what_nobody_takes_is_not_made():
    made = []
    stream = in_order(made.append, range(1000), 3)
    next(stream)
    stream.close()
    assert len(made) <= 7
