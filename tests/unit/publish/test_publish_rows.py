"""Tables that nobody printed: cells that are meant to be empty, columns that hold another
benchmark, rows with a footnote."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.publish.reading import (
    DISCREPANCIES,
    PEERS,
    lines_of,
    markdown_row,
    pick,
    table_titled,
)

from cliptrase.plan import Plan
from cliptrase.publish.tables.cells import Line, missing, to_frame
from cliptrase.publish.tables.layout import sheet_of
from cliptrase.publish.tables.render import number, tex, to_csv, to_latex, to_markdown

OURS = "D-26 rule cliptrase (released)"
READINGS = (
    "readings where the text is silent: rows of the attention sum to 1, no softmax, output "
    "projection, residual and FFN kept, prototypes upsampled bilinearly before the argmax, hard "
    "vote, eps 0.7 and min_samples 3 at every size (docs/readings.md)"
)
D13 = "D-13 logits × [CLS] logits"


def test_a_step_that_a_benchmark_does_not_have_is_empty_with_its_reason(
    paper: Plan, discrepancies: list[Line]
) -> None:
    own = [line for line in discrepancies if line.row == D13]
    assert [line.column for line in own if line.value is not None] == ["voc20"]
    assert len(own) == 10 and pick(own, D13, "voc20").versus == "D-12 eps 1.1, min_samples 7"
    for line in own:
        if line.column != "voc20":
            assert (line.run, line.ci_low, line.diff, line.versus) == ("", None, None, "")
            assert line.protocol == "crop" and line.model == "vit_b16" and not line.published
            assert line.rule == "cliptrase" and line.vocabulary
    assert missing(to_frame(discrepancies)) == (0, 97, {})
    sheet = sheet_of(paper, paper.tables[DISCREPANCIES], to_frame(discrepancies))
    text = to_markdown(sheet)
    marks = {text: mark for text, mark in sheet.notes.items()}
    reason = "D-13: the released code multiplies by the [CLS] logits on VOC20 only"
    cells = markdown_row(text, D13)
    assert cells.count(f"<sup>{marks[reason]}</sup>") == 8
    assert cells[-1].rstrip(" |") == (
        f"<sup>{marks['no average: this row is not on every benchmark']}</sup>"
    )
    assert "are missing" not in text
    assert f"\\textsuperscript{{{marks[reason]}}}" in to_latex(sheet)
    rows = [
        row
        for row in csv.DictReader(io.StringIO(to_csv(to_frame(discrepancies))))
        if row["row"] == D13
    ]
    assert [row["benchmark"] for row in rows if row["value"] or row["run"]] == ["voc20"]
    assert len(rows) == 10


def test_runs_that_are_missing_are_still_counted(paper: Plan, tmp_path: Path) -> None:
    lines = lines_of(paper, tmp_path, DISCREPANCIES)
    assert missing(to_frame(lines))[:2] == (97, 97)
    assert "not on every" not in "".join(missing(to_frame(lines))[2])


def test_a_column_holds_two_definitions_of_a_benchmark(
    paper: Plan, discrepancies: list[Line]
) -> None:
    text = pick(discrepancies, "D-21 void is ignored", "voc21")
    code = pick(discrepancies, "D-21 void is background (released)", "voc21")
    assert (text.benchmark, code.benchmark) == ("voc21_standard", "voc21")
    assert text.run.startswith("voc21_standard.") and code.run.startswith("voc21.")
    assert code.versus == text.row
    assert code.diff == pytest.approx(code.value - text.value)
    sheet = sheet_of(paper, paper.tables[DISCREPANCIES], to_frame(discrepancies))
    heads = [column.key for column in sheet.panels[0].columns]
    assert "voc21_standard" not in heads and len(sheet.panels) == 1
    cells = markdown_row(to_markdown(sheet), text.row)
    assert number(text.value) in cells[heads.index("voc21")]
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(to_csv(to_frame(discrepancies))))
            if row["benchmark"].startswith("voc21_")}  # fmt: skip
    assert set(rows) == {text.row}


def test_two_lists_of_words_for_one_benchmark_are_both_named(
    paper: Plan, discrepancies: list[Line]
) -> None:
    mended = pick(discrepancies, "D-25 beach and hill two words, bed once", "voc21")
    released = pick(discrepancies, "D-25 beachhill, bed twice (released)", "voc21")
    assert mended.vocabulary.startswith("voc20+voc21_background_mended@")
    assert released.vocabulary.startswith("voc20+voc21_background@")
    assert len({line.vocabulary[-10:] for line in (mended, released)}) == 2
    text = to_markdown(sheet_of(paper, paper.tables[DISCREPANCIES], to_frame(discrepancies)))
    assert f"voc21: {released.vocabulary}, 6 images" in text
    assert f"voc21 in {mended.row}: {mended.vocabulary}" in text


def test_a_cell_that_is_compared_with_another_row_than_its_neighbours_says_so(
    paper: Plan, peers: list[Line]
) -> None:
    odd = [
        replace(line, versus="SCLIP") if (line.row, line.column) == ("GEM", "voc20") else line
        for line in peers
    ]
    sheet = sheet_of(paper, paper.tables[PEERS], to_frame(odd))
    (mark,) = [mark for text, mark in sheet.notes.items() if text == "compared with SCLIP"]
    text = to_markdown(sheet)
    heads, *rows = table_titled(text, "Differences to CLIP")
    marked = {
        (row[0], head)
        for row in rows
        for head, cell in zip(heads, row, strict=True)
        if f"{mark}</sup>" in cell
    }
    assert marked == {("GEM", "voc20")} and text.count(f"{mark}</sup>") == 2


# --- every line names its protocol, words and rule ------------------------------------------


@pytest.mark.parametrize(
    "table", [DISCREPANCIES, PEERS, "table_peers_slide", "table2_ablation", "fig7_sensitivity"]
)
def test_every_line_but_a_quoted_one_names_protocol_words_and_rule(
    paper: Plan, whole_paper: Path, table: str
) -> None:
    lines = lines_of(paper, whole_paper, table)
    for row in csv.DictReader(io.StringIO(to_csv(to_frame(lines)))):
        assert row["protocol"] in ("crop", "slide") and row["model"] == "vit_b16"
        assert re.fullmatch(r"([a-z0-9_]+(\+[a-z0-9_]+)?@[0-9a-f]{10} ?)+", row["vocabulary"])
        assert row["rule"] in ("cliptrase", "mmseg")
    quoted = [x for x in lines_of(paper, whole_paper, "table1_main") if x.kind == "quoted"]
    assert {(x.protocol, x.vocabulary, x.rule) for x in quoted} == {("", "", "")}


def test_an_average_names_the_words_of_every_column(
    discrepancies: list[Line], peers: list[Line]
) -> None:
    own = [line for line in peers if line.row == "GEM" and line.kind == "run"]
    average = pick(peers, "GEM", "avg")
    assert average.vocabulary.split() == [line.vocabulary for line in own]
    assert len(own) == 9 == len({line.vocabulary for line in own})
    # a row on VOC20 alone: elsewhere the words that its benchmarks have
    part = pick(discrepancies, D13, "avg")
    assert part.value is None and part.vocabulary == average.vocabulary


def test_a_line_that_is_empty_on_purpose_has_the_benchmark_s_own_words(
    paper: Plan, discrepancies: list[Line]
) -> None:
    whole = {line.column: line.vocabulary for line in discrepancies if line.row == OURS}
    row = "D-25 beach and hill two words, bed once"
    for line in discrepancies:
        if line.row == row and line.kind == "absent" and line.column != "avg":
            assert line.vocabulary == whole[line.column]
    mended = pick(discrepancies, row, "voc21").vocabulary
    words = pick(discrepancies, row, "avg").vocabulary.split()
    assert mended in words and whole["voc21"] not in words


# --- footnotes of rows -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "rows", "note"),
    [
        (DISCREPANCIES, ["cliptrase_paper"], READINGS),
        (PEERS, ["CLIPtrase, paper's text"], READINGS),
        (
            "table_peers_slide",
            ["CLIPtrase (slide, features only)", "CLIPtrase (slide, soft vote)"],
            "no [CLS] logits under slide, on VOC20 neither",
        ),
    ],
)
def test_a_row_has_its_footnote_on_its_label(
    paper: Plan, whole_paper: Path, table: str, rows: list[str], note: str
) -> None:
    lines = lines_of(paper, whole_paper, table)
    sheet = sheet_of(paper, paper.tables[table], to_frame(lines))
    (mark,) = [mark for text, mark in sheet.notes.items() if text == note]
    text, latex = to_markdown(sheet), to_latex(sheet)
    labels = [line.split("<br>")[0] for line in text.splitlines() if line.startswith("| ")]
    marked = [label for label in labels if re.search(rf"<sup>(≈,)?{mark}(</sup>|,)", label)]
    assert [re.sub("<sup>.*", "", label).strip("| ") for label in marked] == rows
    assert text.count(note.replace("[", r"\[").replace("]", r"\]")) == 1
    found = re.findall(r"(?m)^\{\}(.*?)\\textsuperscript\{([^}]*)\} &", latex)
    assert [label for label, marks in found if mark in marks.split(",")] == [
        row.replace("_", r"\_") for row in rows
    ]
    assert f"\\textsuperscript{{{mark}}} {tex(note)}\\par" in latex
    assert note not in to_csv(to_frame(lines))


def test_a_label_has_its_footnote_beside_the_mark_of_the_best(
    paper: Plan, peers: list[Line]
) -> None:
    row = "CLIPtrase, paper's text"
    alike = [replace(line, near_best=line.row == row) for line in peers]
    sheet = sheet_of(paper, paper.tables[PEERS], to_frame(alike))
    (mark,) = [mark for text, mark in sheet.notes.items() if text == READINGS]
    assert f"| {row}<sup>≈,{mark}</sup> |" in to_markdown(sheet)
    assert f"{row}\\textsuperscript{{$\\approx$,{mark}}} &" in to_latex(sheet)
