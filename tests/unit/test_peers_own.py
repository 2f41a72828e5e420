"""published/peers.csv: what the papers of other methods print, beside runs with their settings."""

from __future__ import annotations

from collections import Counter

from cliptrase import plan
from cliptrase.plan.tables import published
from cliptrase.publish.tables.printed import PEERS, read_peers


def test_peers_have_a_source_a_value_and_a_place_in_the_table() -> None:
    lines = published("peers.csv")
    assert len(read_peers()) == len(lines)  # none is listed twice
    assert all(line["source"] and 0 < float(line["value"]) < 100 for line in lines)
    table = plan.load("peers").tables[PEERS]
    places = {(row.name, cell.benchmark) for row in table.rows for cell in row.cells}
    rows = Counter(row for row, _ in places)
    printed = {(line["row"], line["benchmark"]) for line in lines}
    assert rows.keys() <= {row for row, _ in printed}
    ours = {place for place in printed if place[0] in rows and place[1] != "cityscapes19"}
    assert ours <= places  # Cityscapes (19 classes) is not among the suite's benchmarks
