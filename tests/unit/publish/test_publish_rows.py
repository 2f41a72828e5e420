"""Tables that nobody printed: cells that are meant to be empty, columns that hold another
benchmark, rows that may be as good as the best, and what never stands side by side."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cliptrase.evaluate import bootstrap, metrics, seal
from cliptrase.plan import Plan
from cliptrase.publish.cells import Line, missing, tidy
from cliptrase.publish.charts import bars
from cliptrase.publish.frames import Frame, frames, titles
from cliptrase.publish.layout import Panel, Sheet, arrange
from cliptrase.publish.render import number, to_csv, to_latex, to_markdown
from cliptrase.publish.row_charts import row_bars
from cliptrase.publish.runs import Shelf
from cliptrase.publish.tables import sheet_of

DISCREPANCIES, PEERS = "table_discrepancies", "table_peers"
D13 = "D-13 logits × [CLS] logits"


def lines_of(suite: Plan, results: Path, table: str) -> list[Line]:
    return tidy(suite, Shelf(suite, results, results / "no-data"), suite.tables[table])


def pick(lines: list[Line], row: str, column: str) -> Line:
    (line,) = [one for one in lines if (one.row, one.column) == (row, column)]
    return line


def markdown_row(text: str, row: str) -> list[str]:
    """The cells of a row of the first table that has it."""
    label = row.replace("[", r"\[").replace("]", r"\]")
    found = next(line for line in text.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in found.split(" | ")[1:]]


@pytest.fixture(scope="module")
def discrepancies(paper: Plan, whole_paper: Path) -> list[Line]:
    return lines_of(paper, whole_paper, DISCREPANCIES)


@pytest.fixture(scope="module")
def peers(paper: Plan, whole_paper: Path) -> list[Line]:
    return lines_of(paper, whole_paper, PEERS)


# --- cells that are meant to be empty --------------------------------------------------------


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
    assert missing(discrepancies) == (0, 97, {})
    sheet = sheet_of(paper, paper.tables[DISCREPANCIES], discrepancies)
    text = to_markdown(sheet)
    marks = {text: mark for mark, text in sheet.notes}
    reason = "D-13: the released code multiplies by the [CLS] logits on VOC20 only"
    cells = markdown_row(text, D13)
    assert cells.count(f"<sup>{marks[reason]}</sup>") == 8
    assert cells[-1].rstrip(" |") == (
        f"<sup>{marks['no average: this row is not on every benchmark']}</sup>"
    )
    assert "are missing" not in text
    assert f"\\textsuperscript{{{marks[reason]}}}" in to_latex(sheet)
    rows = [row for row in csv.DictReader(io.StringIO(to_csv(discrepancies))) if row["row"] == D13]
    assert [row["benchmark"] for row in rows if row["value"] or row["run"]] == ["voc20"]
    assert len(rows) == 10


def test_runs_that_are_missing_are_still_counted(paper: Plan, tmp_path: Path) -> None:
    lines = lines_of(paper, tmp_path, DISCREPANCIES)
    assert missing(lines)[:2] == (97, 97)
    assert "not on every" not in "".join(missing(lines)[2])


def test_a_column_holds_two_definitions_of_a_benchmark(
    paper: Plan, discrepancies: list[Line]
) -> None:
    text = pick(discrepancies, "D-21 void is ignored", "voc21")
    code = pick(discrepancies, "D-21 void is background (released)", "voc21")
    assert (text.benchmark, code.benchmark) == ("voc21_standard", "voc21")
    assert text.run.startswith("voc21_standard.") and code.run.startswith("voc21.")
    assert code.versus == text.row
    assert code.diff == pytest.approx(code.value - text.value)
    sheet = sheet_of(paper, paper.tables[DISCREPANCIES], discrepancies)
    heads = [column.key for column in sheet.panels[0].columns]
    assert "voc21_standard" not in heads and len(sheet.panels) == 1
    cells = markdown_row(to_markdown(sheet), text.row)
    assert number(text.value) in cells[heads.index("voc21")]
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(to_csv(discrepancies)))
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
    text = to_markdown(sheet_of(paper, paper.tables[DISCREPANCIES], discrepancies))
    assert f"voc21: {released.vocabulary}, 6 images" in text
    assert f"voc21 in {mended.row}: {mended.vocabulary}" in text


def test_two_rules_are_side_by_side_where_rows_name_them(
    paper: Plan, discrepancies: list[Line]
) -> None:
    sheet = sheet_of(paper, paper.tables[DISCREPANCIES], discrepancies)
    assert "rule cliptrase, mmseg" in sheet.facts
    assert pick(discrepancies, "D-26 rule mmseg", "pc59").rule == "mmseg"
    assert pick(discrepancies, "D-26 rule cliptrase (released)", "avg").rule == "cliptrase"
    assert list(frames(discrepancies)) == [Frame("crop", "cliptrase")]


def test_a_cell_that_is_compared_with_another_row_than_its_neighbours_says_so(
    paper: Plan, peers: list[Line]
) -> None:
    odd = [
        replace(line, versus="SCLIP") if (line.row, line.column) == ("GEM", "voc20") else line
        for line in peers
    ]
    sheet = sheet_of(paper, paper.tables[PEERS], odd)
    (mark,) = [mark for mark, text in sheet.notes if text == "compared with SCLIP"]
    text = to_markdown(sheet)
    assert "| GEM<br><sub>to CLIP</sub> |" in text
    heads = [column.key for column in sheet.panels[0].columns]
    marked = [f"{mark}</sup>" in cell for cell in markdown_row(text, "GEM")]
    assert [name for name, there in zip(heads, marked, strict=True) if there] == ["voc20"]


def test_numbers_under_different_rules_have_no_best(paper: Plan, discrepancies: list[Line]) -> None:
    (panel,) = sheet_of(paper, paper.tables[DISCREPANCIES], discrepancies).panels
    best = {section.title: any(e.best for row in section.rows for e in row.entries if e)
            for section in panel.sections}  # fmt: skip
    assert not best["D-26: which classes mIoU averages"]
    assert best["from the text to the released code"]


# --- as good as the best ---------------------------------------------------------------------


def drawn(results: Path, run: str) -> np.ndarray:
    """mIoU of every resample, computed one by one."""
    with np.load(results / "runs" / run / "per_image.npz") as file:
        counts = [file[key].astype(np.int64) for key in ("tp", "gt", "pred")]
    weights = bootstrap.weights(len(counts[0]))
    picks = [np.repeat(np.arange(len(row)), row) for row in weights]
    sums = ([count[pick].sum(0) for count in counts] for pick in picks)
    return np.array([float(metrics.scores("cliptrase", *one)["mIoU"]) for one in sums])


def test_a_cell_is_marked_where_its_difference_to_the_best_holds_zero(
    paper: Plan, whole_paper: Path, peers: list[Line]
) -> None:
    marked = set()
    resamples: dict[str, dict[str, np.ndarray]] = {}
    columns = ("voc20", "ade150", "pc459")
    for column in columns:
        own = {line.row: line for line in peers if line.column == column and line.run}
        resamples[column] = {row: drawn(whole_paper, line.run) for row, line in own.items()}
        best = max(own, key=lambda row: own[row].value)
        for row, line in own.items():
            gaps = resamples[column][best] - resamples[column][row]
            low, middle, high = np.quantile(gaps, [0.025, 0.5, 0.975])
            gap = own[best].value - line.value
            alike = gap + low - middle <= 0 <= gap + high - middle and row != best
            assert line.near_best == alike, (row, column)
            marked.add(alike)
        assert not own[best].near_best
    assert marked == {True, False}


def test_an_average_is_compared_as_an_average(
    paper: Plan, whole_paper: Path, peers: list[Line]
) -> None:
    own = {line.row: line for line in peers if line.column == "avg" and line.value is not None}
    best = max(own, key=lambda row: own[row].value)
    means = {
        row: np.mean(
            [drawn(whole_paper, one.run) for one in peers if one.row == row and one.run], 0
        )
        for row in (best, "GEM", "CLIP")
    }
    for row in ("GEM", "CLIP"):
        low, middle, high = np.quantile(means[best] - means[row], [0.025, 0.5, 0.975])
        gap = own[best].value - own[row].value
        assert own[row].near_best == (gap + low - middle <= 0 <= gap + high - middle)


def test_rows_and_cells_carry_the_mark_and_a_line_explains_it(
    paper: Plan, peers: list[Line]
) -> None:
    alike = [replace(line, near_best=line.row in ("GEM", "SCLIP")) for line in peers]
    alike = [replace(x, near_best=x.near_best and (x.row, x.column) != ("GEM", "avg"))
             for x in alike]  # fmt: skip
    sheet = sheet_of(paper, paper.tables[PEERS], alike)
    text, latex = to_markdown(sheet), to_latex(sheet)
    assert "| SCLIP<sup>≈</sup><br>" in text and "| GEM<br>" in text
    assert markdown_row(text, "GEM")[0].count("<sup>≈</sup>") == 1
    assert markdown_row(text, "NACLIP")[0].count("≈") == 0
    assert "≈ The difference to the best of the column is not significant" in text
    assert r"SCLIP\textsuperscript{$\approx$} &" in latex and "≈" not in latex
    assert "≈" not in to_csv(alike)
    assert "≈" not in to_markdown(
        sheet_of(paper, paper.tables[PEERS], [replace(line, near_best=False) for line in peers])
    )


def test_all_are_compared_with_clip_and_a_printed_table_marks_nothing(
    paper: Plan, whole_paper: Path, peers: list[Line]
) -> None:
    assert {line.versus for line in peers if line.row == "CLIP"} == {""}
    others = [line for line in peers if line.row != "CLIP" and line.kind != "absent"]
    assert {line.versus for line in others} == {"CLIP"} and all(x.diff is not None for x in others)
    clip = pick(peers, "CLIP", "pc59")
    line = pick(peers, "NACLIP", "pc59")
    assert line.diff == pytest.approx(line.value - clip.value)
    assert not any(line.near_best for line in lines_of(paper, whole_paper, "table1_main"))


def test_a_run_of_other_code_is_neither_best_nor_near_it(
    paper: Plan, whole_paper: Path, tmp_path: Path, peers: list[Line]
) -> None:
    own = [line for line in peers if line.column == "pc59" and line.run]
    for line in own:
        shutil.copytree(whole_paper / "runs" / line.run, tmp_path / "runs" / line.run)
        provenance = tmp_path / "runs" / line.run / seal.PROVENANCE
        if line.row == "CLIPtrase":
            provenance.write_text(provenance.read_text().replace("0" * 64, "f" * 64))
    lines = lines_of(paper, tmp_path, PEERS)
    assert not any(line.near_best for line in lines if line.column == "pc59")


# --- what never stands side by side ----------------------------------------------------------


def mixed(lines: list[Line], change: Callable[[Line], dict[str, str]]) -> list[Line]:
    return [replace(line, **change(line)) for line in lines if line.kind in ("run", "avg")]


def sheet_from(lines: list[Line]) -> Sheet:
    order = [name for name in names_of(lines) if name != "avg"]
    return arrange(
        "t", "T", lines, suite="s", kind="metrics", order=order, background=lambda _: False
    )


def names_of(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(line.column for line in lines))


def lines_in(panel: Panel) -> list[Line]:
    entries = (e for section in panel.sections for row in section.rows for e in row.entries)
    return [entry.line for entry in entries if entry]


SPLITS = {
    "protocol": lambda line: {"protocol": "slide"} if line.row in ("SCLIP", "GEM") else {},
    "rule": lambda line: {"rule": "mmseg"} if line.row in ("SCLIP", "GEM") else {},
}


@pytest.mark.parametrize("what", SPLITS)
def test_two_protocols_or_rules_never_share_a_column_or_a_group_of_bars(
    what: str, peers: list[Line]
) -> None:
    lines = mixed(peers, SPLITS[what])
    sheet = sheet_from(lines)
    assert len(sheet.panels) == 2 and all(panel.title for panel in sheet.panels)
    for panel in sheet.panels:
        assert len({getattr(line, what) for line in lines_in(panel)}) == 1
    assert sorted(line.row for panel in sheet.panels for line in lines_in(panel)) == sorted(
        line.row for line in lines
    )
    columns = len({line.column for line in lines})
    axes = bars("T", lines).axes[0]
    ticks = axes.get_xticks()
    assert len(ticks) == 2 * columns
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    groups: dict[int, set[str]] = {}
    for name, container in zip(names, axes.containers[1::2], strict=True):
        for bar in container:
            near = int(np.abs(ticks - bar.get_x() - bar.get_width() / 2).argmin())
            groups.setdefault(near, set()).add(name)
    own = {"SCLIP", "GEM"}
    assert len(groups) == 2 * columns
    assert all(found <= own or not found & own for found in groups.values())
    assert sum(found <= own for found in groups.values()) == columns
    panels = [ax for ax in row_bars("T", lines).axes if ax.get_visible()]
    assert len(panels) == 2 * columns
    counts = [len(ax.patches) for ax in panels]
    assert counts == [*[8 if name == "voc20" else 7 for name in names_of(lines)], *[2] * columns]


def test_a_row_that_names_its_rule_stands_beside_another(peers: list[Line]) -> None:
    lines = mixed(peers, SPLITS["rule"])
    said = [replace(x, row=f"{x.row}, rule mmseg") if x.rule == "mmseg" else x for x in lines]
    assert len(frames(said)) == 1 and len(sheet_from(said).panels) == 1
    only_one = [replace(x, row=f"{x.row}, rule mmseg") if x.row == "GEM" else x for x in lines]
    assert list(frames(only_one)) == [Frame("crop", "cliptrase"), Frame("crop", "mmseg")]
    assert {line.row for line in frames(only_one)[Frame("crop", "mmseg")]} == {"SCLIP"}


def test_an_empty_cell_stands_with_the_others_of_its_row(discrepancies: list[Line]) -> None:
    lines = [replace(x, protocol="slide") if x.row.startswith("D-21") else x for x in discrepancies]
    found = frames(lines)
    assert titles(list(found)) == ["protocol crop", "protocol slide"]
    assert len(found[Frame("slide", "cliptrase")]) == 20
    bare = [x for x in discrepancies if x.row.startswith("D-21") and x.kind == "absent"]
    assert list(frames(bare)) == [Frame("crop", "cliptrase")]
    assert [panel.title for panel in sheet_from(bare).panels] == [""]


def test_rows_of_one_name_in_two_groups_are_two_bars(peers: list[Line]) -> None:
    two = [replace(line, group=group) for group in "ab" for line in mixed(peers, lambda _: {})]
    names = [text.get_text() for text in bars("T", two).axes[0].get_legend().get_texts()]
    assert "CLIP (a)" in names and "CLIP (b)" in names and len(names) == 20


def test_rows_of_bars_stand_at_their_values(peers: list[Line], discrepancies: list[Line]) -> None:
    axes = [ax for ax in row_bars("T", peers).axes if ax.get_visible()]
    assert [ax.get_title() for ax in axes][-1] == "avg" and len(axes) == 10
    for ax in axes:
        own = {x.row: x for x in peers if x.column == ax.get_title() and x.value is not None}
        widths = sorted(bar.get_width() for bar in ax.patches)
        assert widths == pytest.approx(sorted(line.value for line in own.values()))
        shown = sorted(text.get_text() for text in ax.texts)
        wanted = (f"{x.value:.1f}" + " ≈" * x.near_best for x in own.values())
        assert shown == sorted(wanted)
    names = [text.get_text() for text in axes[0].get_yticklabels()]
    assert len(names) == 10 and names[0] == "CLIP"
    steps = row_bars("T", discrepancies).axes
    assert len([bar for ax in steps for bar in ax.patches]) == 97
