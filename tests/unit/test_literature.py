"""published/literature.csv: what other papers print, and the page made of it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from benchmarks import literature

from cliptrase.config import files


@pytest.fixture(scope="module")
def values() -> list[literature.Value]:
    return literature.read_literature()


def test_the_page_is_what_the_script_renders(values: list[literature.Value]) -> None:
    assert literature.PAGE.read_text(encoding="utf-8") == literature.page(values)


def test_benchmarks_exist_and_twenty_papers_were_read_first_hand(
    values: list[literature.Value],
) -> None:
    existing = {file.stem for file in (files.CONF / "benchmark").glob("*.yaml")}
    assert {value.benchmark for value in values} <= existing
    assert len({value.paper for value in values if value.first_hand}) >= 20


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("59.6", "59.63", True),
        ("59.6", "59.65", True),
        ("59.6", "59.66", False),
        ("59.1", "59.6", False),
        ("81.54", "81.53", False),
        ("60", "60.4", True),
    ],
)
def test_a_rounded_number_is_no_disagreement(one: str, other: str, same: bool) -> None:
    assert literature._same(one, other) is literature._same(other, one) is same


def test_ranges_take_notes_only_where_nothing_else_was_read() -> None:
    def value(text: str, paper: str, read: str) -> literature.Value:
        return literature.Value("M", "voc20", text, False, paper, read)

    first = [value("9.5", "A", "paper"), value("10.1", "B", "readme"), value("10.1", "B", "paper")]
    notes = [value("99.0", "C", "notes")]
    assert literature._range(first + notes) == "9.5 – 10.1 (2)"
    assert literature._range(notes) == "*99.0* (1)"
    assert literature._disagreement(first + notes) == (
        Decimal("0.6"),
        "9.5 (A); 10.1 (B README, B)",
    )
    assert literature._disagreement(first[1:] + notes) is None
