"""Tidy lines of a table: values, intervals, differences, the paper's numbers, reasons for gaps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.provenance import change_provenance
from tests.unit.publish.reading import lines_of, markdown_row, table_titled

from cliptrase.plan import Plan
from cliptrase.publish.results import FinishedRun, Shelf
from cliptrase.publish.tables.cells import COLUMNS, Line, missing, tidy, to_frame
from cliptrase.publish.tables.layout import sheet_of
from cliptrase.publish.tables.render import to_csv, to_latex, to_markdown
from cliptrase.runs import bootstrap, code, finished, metrics, scoring
from cliptrase.runs.scoring import vocabulary_digest

Make = Callable[..., list[str]]


def pick(lines: list[Line], row: str, benchmark: str, metric: str = "mIoU") -> Line:
    (line,) = [
        one for one in lines if (one.row, one.benchmark, one.metric) == (row, benchmark, metric)
    ]
    return line


def runs_of(suite: Plan, table: str) -> list[str]:
    cells = [cell for row in suite.tables[table].rows for cell in row.cells]
    return list(dict.fromkeys(cell.run for cell in cells if cell.run))


def run_of(suite: Plan, table: str, row: str, benchmark: str) -> str:
    (name,) = {
        cell.run
        for one in suite.tables[table].rows
        for cell in one.cells
        if (cell.row, cell.benchmark) == (row, benchmark)
    }
    return name


@pytest.fixture
def few(paper: Plan, whole_paper: Path, tmp_path: Path) -> Path:
    """The runs of table 1, a folder that a test may spoil."""
    for name in runs_of(paper, "table1_main"):
        shutil.copytree(whole_paper / "runs" / name, tmp_path / "runs" / name)
    return tmp_path


def edit(file: Path, content: bytes, fit: bool = False, scored: str = "") -> None:
    """Replace a file of a run; `fit`: provenance.json then says that it was written so, by scoring
    code of the digest `scored`."""
    file.write_bytes(content)
    if fit:
        more = {"scoring": scored} if scored else {}
        change_provenance(file.parent, files=finished.file_digests(file.parent), **more)


def test_the_columns_are_those_that_other_programs_rely_on() -> None:
    assert ",".join(COLUMNS) == (
        "table,row,benchmark,metric,image_size,value,ci_low,ci_high,versus,diff,diff_low,diff_high,"
        "published,delta,model,protocol,vocabulary,rule,run"
    )


def test_a_run_cell_tells_what_its_metrics_say(paper: Plan, whole_paper: Path) -> None:
    line = pick(lines_of(paper, whole_paper, "table6_metrics_224"), "SCLIP", "voc21", "fwIoU")
    said = json.loads((whole_paper / "runs" / line.run / "metrics.json").read_text())
    assert line.run.startswith("voc21.sclip.vit_b16.224.")
    assert (line.value, line.ci_low, line.ci_high) == (said["fwIoU"], *said["ci"]["fwIoU"])
    assert (line.model, line.protocol, line.rule) == ("vit_b16", "crop", "cliptrase")
    digest = vocabulary_digest(paper.runs[line.run])
    assert line.vocabulary == f"voc20+voc21_background@{digest[:10]}"
    assert line.image_size == 224


def test_each_row_is_compared_with_the_row_above_that_was_run(
    paper: Plan, whole_paper: Path
) -> None:
    rows = {line.row: line.versus for line in lines_of(paper, whole_paper, "table1_main")}
    assert rows["CLIP"] == "" and rows["SCLIP"] == "CLIP" and rows["CLIPtrase"] == "SCLIP"
    assert rows["CLIP-Surgery"] == "" and rows["SAN"] == ""
    rows = {
        line.row: line.versus
        for line in lines_of(paper, whole_paper, "table2_ablation")
        if line.metric == "mIoU"
    }
    assert [rows[row] for row in ("CLIP", "+SCR", "+PC", "+D")] == ["", "CLIP", "+SCR", "+PC"]
    assert (rows["inner product"], rows["cosine"]) == ("", "inner product")
    assert (rows["224"], rows["336"]) == ("", "224")
    assert (rows["layer 9"], rows["layer 10"], rows["layer 9, direct"]) == ("", "layer 9", "")


def test_a_difference_is_that_of_the_same_resamples(paper: Plan, whole_paper: Path) -> None:
    line = pick(lines_of(paper, whole_paper, "table1_main"), "CLIPtrase", "pc459")
    both = []
    for row in ("CLIPtrase", "SCLIP"):
        folder = whole_paper / "runs" / run_of(paper, "table1_main", row, "pc459")
        with np.load(folder / "per_image.npz") as file:
            counts = {key: file[key].astype(np.int64) for key in ("tp", "gt", "pred")}
        drawn = [
            float(
                metrics.scores("cliptrase", *(counts[key][chosen].sum(0) for key in counts))["mIoU"]
            )
            for chosen in (np.repeat(np.arange(6), times) for times in bootstrap.weights(6))
        ]
        both.append(np.array(drawn))
    gaps = both[0] - both[1]
    low, middle, high = np.quantile(gaps, [0.025, 0.5, 0.975])
    values = [
        pick(lines_of(paper, whole_paper, "table1_main"), row, "pc459").value
        for row in ("CLIPtrase", "SCLIP")
    ]
    assert line.diff == pytest.approx(values[0] - values[1])
    assert line.diff_low == pytest.approx(line.diff + low - middle)
    assert line.diff_high == pytest.approx(line.diff + high - middle)


def test_a_first_row_has_no_difference(paper: Plan, whole_paper: Path) -> None:
    line = pick(lines_of(paper, whole_paper, "table1_main"), "CLIP", "pc459")
    assert (line.versus, line.diff, line.diff_low, line.diff_high) == ("", None, None, None)


def test_the_average_is_over_the_benchmarks_of_its_row(paper: Plan, whole_paper: Path) -> None:
    lines = lines_of(paper, whole_paper, "table7_metrics_336")
    own = [
        line
        for line in lines
        if line.row == "SCLIP" and line.metric == "mAcc" and line.benchmark != "avg"
    ]
    average = pick(lines, "SCLIP", "avg", "mAcc")
    assert len(own) == 9 and average.run == "" and average.versus == "CLIP"
    assert average.value == pytest.approx(np.mean([line.value for line in own]))
    drawn = []
    for line in own:
        counts = scoring.read_counts(whole_paper / "runs" / line.run)
        parts = (counts.tp, counts.gt, counts.pred)
        drawn.append(bootstrap.resampled("cliptrase", *parts)["mAcc"])
    low, middle, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.5, 0.975])
    assert average.ci_low == pytest.approx(average.value + low - middle)
    assert average.ci_high == pytest.approx(average.value + high - middle)
    clip = pick(lines, "CLIP", "avg", "mAcc").value
    assert average.diff == pytest.approx(average.value - clip)


def test_an_average_needs_every_benchmark(paper: Plan, few: Path) -> None:
    shutil.rmtree(few / "runs" / run_of(paper, "table1_main", "SCLIP", "pc59"))
    lines = lines_of(paper, few, "table1_main")
    gone, average = pick(lines, "SCLIP", "pc59"), pick(lines, "SCLIP", "avg")
    assert gone.value is None and gone.diff is None and gone.reason
    assert average.value is None and "every benchmark" in average.reason
    assert gone.run == run_of(paper, "table1_main", "SCLIP", "pc59")
    assert pick(lines, "SCLIP", "voc20").value is not None
    below = pick(lines, "CLIPtrase", "pc59")
    assert below.value is not None and below.versus == "SCLIP" and below.diff is None
    assert missing(to_frame(lines))[:2] == (2, 30)


def test_flops_are_relative_to_the_first_row(paper: Plan, whole_paper: Path) -> None:
    lines = [
        line for line in lines_of(paper, whole_paper, "table2_ablation") if line.metric == "flops"
    ]
    assert [line.row for line in lines] == ["CLIP", "+SCR", "+PC", "+D"]
    assert [line.value for line in lines] == [1.0, 1.2, 1.2, 1.2]
    assert {(line.benchmark, line.run, line.versus) for line in lines} == {("", "", "")}
    assert [line.published for line in lines] == ["1.0", "1.2", "1.9", "2.0"]


def test_best_is_the_best_cell_of_the_whole_grid(paper: Plan, whole_paper: Path) -> None:
    lines = lines_of(paper, whole_paper, "fig7_sensitivity")
    grid, best = lines[:-1], lines[-1]
    top = max(grid, key=lambda line: line.value or 0.0)
    assert len(grid) == 64 and best.row == "best"
    assert (best.value, best.run, best.best_of) == (top.value, top.run, top.row)
    assert best.versus == "eps=0.7 min_samples=3"
    assert best.diff == pytest.approx(best.value - pick(grid, best.versus, "voc20").value)
    assert best.published == "81.01" and "80.95" in best.note
    assert {line.versus for line in grid if line.row != best.versus} == {best.versus}
    assert pick(grid, best.versus, "voc20").versus == ""


def test_no_best_of_a_part_of_the_grid(paper: Plan, make: Make, tmp_path: Path) -> None:
    make(paper, tmp_path, runs_of(paper, "fig7_sensitivity")[:3])
    best = lines_of(paper, tmp_path, "fig7_sensitivity")[-1]
    assert best.value is None and best.run == "" and "whole grid" in best.reason


def test_the_papers_numbers_stand_beside_runs_that_may_be_compared(
    paper: Plan, whole_paper: Path
) -> None:
    line = pick(lines_of(paper, whole_paper, "table1_main"), "CLIP", "coco_stuff")
    assert line.published == "4.70"
    assert line.delta == pytest.approx(line.value - 4.70)
    noted = pick(lines_of(paper, whole_paper, "table1_main"), "CLIPtrase", "pc459")
    assert noted.note == "table 7 prints 10.11"


def test_another_model_gets_no_number_and_no_row_of_the_paper(
    shapes: Plan, make: Make, tmp_path: Path
) -> None:
    make(shapes, tmp_path, runs_of(shapes, "table1_main"))
    lines = lines_of(shapes, tmp_path, "table1_main")
    assert {line.published for line in lines} == {""}
    assert {line.delta for line in lines} == {None}
    assert "quoted" not in {line.kind for line in lines}
    sheet = sheet_of(shapes, shapes.tables["table1_main"], to_frame(lines))
    assert "paper" not in to_markdown(sheet) and "OVSeg" not in to_latex(sheet)


def test_the_paper_s_suite_has_its_quoted_rows(paper: Plan, tmp_path: Path) -> None:
    lines = lines_of(paper, tmp_path, "table1_main")
    quoted = [line for line in lines if line.kind == "quoted"]
    assert {(line.value, line.run, line.model) for line in quoted} == {(None, "", "")}
    assert pick(quoted, "TCL", "voc21").published == "51.2"
    assert [line.benchmark for line in quoted if line.row == "CLIP-Surgery"] == [
        "coco_stuff",
        "pc59",
    ]


def test_a_cell_of_a_benchmark_that_was_not_asked_for_says_so(paper: Plan, tmp_path: Path) -> None:
    shelf = Shelf(paper, tmp_path, tmp_path, asked=["voc20", "ade847"])
    frame = tidy(paper, shelf, paper.tables["table1_main"])
    reasons = frame[frame["row"] == "CLIP"].set_index("column")["reason"]
    said = "not asked for (benchmarks=voc20,ade847)"
    # VOC21 shares the pass of VOC20
    other = reasons.drop(["voc20", "voc21", "ade847", "avg"])
    assert set(other) == {said} and len(other) == 6
    assert not reasons[["voc20", "voc21", "ade847"]].str.contains("asked").any()
    assert reasons["avg"] == f"an average needs every benchmark: {said}"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: shutil.rmtree(folder), "dataset coco is not prepared"),
        (
            lambda folder: edit(folder / "metrics.json", b"{"),
            "metrics.json is not what was written",
        ),
        (lambda folder: edit(folder / "metrics.json", b""), "metrics.json is not what was written"),
        (lambda folder: edit(folder / "metrics.json", b"{", fit=True), "missing or damaged"),
        (
            lambda folder: edit(folder / "metrics.json", b"{}", True, code.scoring_digest()),
            "metrics.json: not a run's metrics; delete it and run again",
        ),
        (
            lambda folder: edit(folder / "metrics.json", b"{}", True, "before mIoU"),
            "scored by other code: run pass coco.vit_b16.336.crop again, it reads no image",
        ),
        (lambda folder: edit(folder / "per_image.npz", b"PK"), "per_image.npz is not what was"),
        (lambda folder: edit(folder / "per_image.npz", b"PK", fit=True), "missing or damaged"),
        (lambda folder: (folder / "confusion.npz").unlink(), "confusion.npz is missing"),
        (lambda folder: edit(folder / "provenance.json", b"{"), "provenance.json is damaged"),
        (
            lambda folder: (folder / "config.yaml").write_text("limit: 3\n"),
            "config.yaml is not what was written: run pass coco.vit_b16.336.crop again",
        ),
    ],
)
def test_a_run_that_cannot_be_trusted_gives_a_reason_and_no_number(
    paper: Plan, few: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    name = run_of(paper, "table1_main", "SCLIP", "coco_stuff")
    spoil(few / "runs" / name)
    line = pick(lines_of(paper, few, "table1_main"), "SCLIP", "coco_stuff")
    assert line.value is None and line.ci_low is None and line.delta is None
    assert reason in line.reason
    assert line.published == "21.61"


def test_a_run_that_is_not_the_one_of_its_pass_is_refused(
    paper: Plan, few: Path, note_passes: Callable[[Plan, Path], None]
) -> None:
    note_passes(paper, few)
    name = run_of(paper, "table1_main", "SCLIP", "coco_stuff")
    path = few / "runs" / name / "metrics.json"
    edit(path, path.read_bytes() + b"\n", fit=True)
    line = pick(lines_of(paper, few, "table1_main"), "SCLIP", "coco_stuff")
    assert line.value is None and "coco.vit_b16.336.crop" in line.reason
    assert pick(lines_of(paper, few, "table1_main"), "CLIP", "coco_stuff").value is not None


def test_a_prepared_dataset_changes_the_reason(paper: Plan, few: Path) -> None:
    shutil.rmtree(few / "runs" / run_of(paper, "table1_main", "SCLIP", "coco_stuff"))
    prepared = few / "data" / "prepared" / "coco"
    prepared.mkdir(parents=True)
    (prepared / "selfcheck.json").write_text('{"count": 5000}')
    line = pick(lines_of(paper, few, "table1_main", few / "data"), "SCLIP", "coco_stuff")
    assert line.reason == "not run yet (pass coco.vit_b16.336.crop)"


def test_a_run_of_other_data_than_what_is_prepared_is_refused(paper: Plan, few: Path) -> None:
    prepared = few / "data" / "prepared" / "coco"
    prepared.mkdir(parents=True)
    (prepared / "selfcheck.json").write_text('{"pixels_sha256": "of other pixels"}')
    lines = lines_of(paper, few, "table1_main", few / "data")
    line = pick(lines, "SCLIP", "coco_stuff")
    assert line.value is None and "other data" in line.reason
    assert pick(lines, "SCLIP", "voc20").value is not None


@pytest.mark.parametrize("differs", ["code", "scoring"])
def test_no_difference_between_runs_of_different_code(
    differs: str, paper: Plan, few: Path, whole_paper: Path
) -> None:
    """By code that predicts, or by code that scores."""
    name = run_of(paper, "table1_main", "SCLIP", "voc20")
    for folder in (few / "runs").iterdir():
        digests = {"code": "a" * 64, "scoring": "b" * 64}
        digests[differs] = ("f" if folder.name == name else "0") * 64
        change_provenance(folder, **digests)
    lines = lines_of(paper, few, "table1_main")
    for row, benchmark in (("SCLIP", "voc20"), ("CLIPtrase", "voc20")):
        line = pick(lines, row, benchmark)
        assert line.value is not None and line.ci_low is not None
        assert line.diff is None and line.diff_low is None
        assert "different code, 0000000000 and ffffffffff" in line.diff_reason
    assert pick(lines, "SCLIP", "voc21").diff is not None
    mixed = pick(lines, "SCLIP", "avg")
    assert mixed.value is None and mixed.reason.startswith("no average: the runs were made by")
    assert pick(lines, "CLIP", "avg").value is not None
    table = paper.tables["table1_main"]
    text = to_markdown(sheet_of(paper, table, to_frame(lines)))
    assert "made by different code (0000000000, ffffffffff)" in text
    assert "no difference: the runs were made by different code" in text
    differences = table_titled(text, "Differences")
    assert [row[5][:6] for row in differences] == ["voc20", "---:", "–<sup>", "–<sup>"]
    row = markdown_row(text, "CLIPtrase")
    assert "**" not in row[4], "the best of runs by different code"
    assert "<sup>" not in row[4], "the reason stands where the difference is missing"
    alike = lines_of(paper, whole_paper, "table1_main")
    assert "different code" not in to_markdown(sheet_of(paper, table, to_frame(alike)))


def test_a_grid_of_different_code_has_no_best(paper: Plan, tmp_path: Path, make: Make) -> None:
    make(paper, tmp_path, runs_of(paper, "fig7_sensitivity"))
    first = paper.tables["fig7_sensitivity"].rows[0].cells[0]
    assert pick(lines_of(paper, tmp_path, "fig7_sensitivity"), "best", "voc20").value is not None
    change_provenance(tmp_path / "runs" / first.run, code="f" * 64)
    lines = lines_of(paper, tmp_path, "fig7_sensitivity")
    best = pick(lines, "best", "voc20")
    assert best.value is None and best.reason.startswith("no best: the runs were made by different")
    grid = to_markdown(sheet_of(paper, paper.tables["fig7_sensitivity"], to_frame(lines)))
    assert not any("**" in line for line in grid.splitlines() if line.startswith("|"))


def test_a_cell_without_a_value_is_not_the_best(
    paper: Plan, whole_paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = runs_of(paper, "fig7_sensitivity")
    monkeypatch.setattr(FinishedRun, "value", lambda run, _: None if run.name == first else 0.0)
    best = lines_of(paper, whole_paper, "fig7_sensitivity")[-1]
    assert (best.run, best.value) == (second, 0.0)


def test_operations_of_different_code_are_not_compared(
    paper: Plan, tmp_path: Path, make: Make
) -> None:
    make(paper, tmp_path, runs_of(paper, "table2_ablation"))
    first = next(cell for row in paper.tables["table2_ablation"].rows for cell in row.cells)
    change_provenance(tmp_path / "runs" / first.run, code="f" * 64)
    line = pick(lines_of(paper, tmp_path, "table2_ablation"), "+PC", "", "flops")
    assert line.value is None and "different code" in line.reason


def test_no_difference_between_other_images(paper: Plan, few: Path, make: Make) -> None:
    make(paper, few, [run_of(paper, "table1_main", "SCLIP", "voc20")], images=5)
    lines = lines_of(paper, few, "table1_main")
    line = pick(lines, "SCLIP", "voc20")
    assert line.value is not None and line.diff is None and "other images" in line.diff_reason
    assert pick(lines, "SCLIP", "avg").diff is None


def test_runs_under_other_versions_are_paired_with_a_footnote(paper: Plan, few: Path) -> None:
    versions = {"torch": "2.13.0", "numpy": "2.4.6", "snakemake": "9.27.1"}
    other = versions | {"torch": "2.14.1", "numpy": "2.5.0", "snakemake": "9.30.0"}
    changed = run_of(paper, "table1_main", "SCLIP", "voc20")
    for folder in (few / "runs").iterdir():
        change_provenance(folder, versions=other if folder.name == changed else versions)
    lines = lines_of(paper, few, "table1_main")
    note = "made under other versions: torch 2.14.1 and 2.13.0, numpy 2.5.0 and 2.4.6"
    swapped = "made under other versions: torch 2.13.0 and 2.14.1, numpy 2.4.6 and 2.5.0"
    line, below = pick(lines, "SCLIP", "voc20"), pick(lines, "CLIPtrase", "voc20")
    assert (line.versions_note, below.versions_note) == (note, swapped)
    assert line.diff is not None and below.diff is not None
    averages = [pick(lines, row, "avg") for row in ("SCLIP", "CLIPtrase")]
    assert {line.versions_note for line in averages} == {swapped}
    marked = {(x.row, x.column) for x in lines if x.versions_note}
    assert marked == {(row, at) for row in ("SCLIP", "CLIPtrase") for at in ("voc20", "avg")}
    sheet = sheet_of(paper, paper.tables["table1_main"], to_frame(lines))
    text = to_markdown(sheet)
    assert text.count(f"<sup>{sheet.notes[note]}</sup> {note}") == 1
    assert text.count("other versions") == 2 and "snakemake" not in text
    assert "other versions" not in to_csv(to_frame(lines))


def test_a_row_near_the_best_of_other_versions_has_the_footnote(
    paper: Plan, whole_paper: Path, tmp_path: Path
) -> None:
    near = next(x for x in lines_of(paper, whole_paper, "table_peers") if x.near_best and x.run)
    shutil.copytree(whole_paper / "runs", tmp_path / "runs")
    change_provenance(tmp_path / "runs" / near.run, versions={"pillow": "1.0"})
    line = pick(lines_of(paper, tmp_path, "table_peers"), near.row, near.benchmark)
    assert line.near_best and line.versions_note == (
        "made under other versions: pillow 1.0 and unknown"
    )
