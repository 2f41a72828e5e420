"""docs/methods.md has a line for every method, and its costs come from a measurement."""

from benchmarks.methods_page import COST, PAGE, lines_of, with_costs

from cliptrase.config import files

TEXT = PAGE.read_text(encoding="utf-8")
HEAD = ["method", "idea", "changes", "needs", "cost", "paper", "licence", "deviations"]


def test_every_method_has_a_line_with_all_its_cells():
    rows = lines_of(TEXT)
    assert {file.stem for file in (files.CONF / "method").glob("*.yaml")} <= rows.keys()
    assert f"| {' | '.join(HEAD)} |" in TEXT and HEAD[COST - 1] == "cost"
    assert {len(cells) for cells in rows.values()} == {len(HEAD) + 2}
    assert all(cells[2].endswith(".") for cells in rows.values())  # an idea is one sentence
    assert TEXT.count("\n| `") == len(rows)  # none is there twice


def test_costs_fill_their_column_alone():
    filled = with_costs(TEXT, {"sclip": 1.037, "unknown": 9.0})
    before, after = lines_of(TEXT), lines_of(filled)
    assert after["sclip"][COST] == "1.04"
    after["sclip"][COST] = before["sclip"][COST]
    assert after == before and filled.count("\n") == TEXT.count("\n")
