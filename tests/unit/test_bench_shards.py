"""benchmarks/shards.py: counts that are drawn, and the tables. No time is judged."""

from __future__ import annotations

from benchmarks import shards
from benchmarks.shards import Made, simulated


def test_drawn_counts_take_as_many_bytes_an_image_whatever_their_number(tmp_path):
    few, more, wide = (simulated(*size, tmp_path) for size in ((50, 20), (500, 20), (500, 200)))
    entries = 16 * shards.CLASSES_OF_AN_IMAGE + 9  # as `Tally` promises
    for each in (few, more, wide):
        overhead = 4000  # the file's own: names and shapes of its arrays
        assert entries <= each.bytes_an_image <= entries + overhead / each.images
    assert more.memory == 500 * 20 * 12 + 500 * 1000, "dense counts and the bootstrap's weights"
    assert wide.memory == 500 * 200 * 12 + 500 * 1000


def test_one_more_shard_is_the_slope_over_passes_that_are_cut():
    def spread(value):
        return {"median": value, "min": value, "max": value + 1}

    cpu = {1: 100.0, 2: 120.0, 4: 130.0, 8: 150.0}
    passes = [Made(n, spread(s), spread(4.0), spread(60.0), 7000 * n) for n, s in cpu.items()]
    assert shards.overhead(passes) == 5.0
    table = shards.markdown(passes, {"4 images": spread(0.4)}, [], 96)
    assert "| 4 images | 0.400 <sub>0.400 – 1.400</sub> |" in table
    assert "| 8 | 150.0 <sub>150.0 – 151.0</sub> | 4.0 " in table and "56,000 |" in table
    assert "One more shard: 5.0 CPU s." in table
