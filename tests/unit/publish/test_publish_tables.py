"""Tables as csv, Markdown and LaTeX, and the command that renders them."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.publish.conftest import make_runs
from tests.unit.publish.reading import lines_in, lines_of, markdown_tables, table_titled

from cliptrase.config.error_names import OF_LOGITS
from cliptrase.errors import UserError
from cliptrase.plan import Plan, load
from cliptrase.publish.results import Shelf
from cliptrase.publish.tables.cells import Line, to_frame
from cliptrase.publish.tables.command import main
from cliptrase.publish.tables.layout import Sheet, sheet_of
from cliptrase.publish.tables.render import PRINTED, number, tex, to_csv, to_latex, to_markdown

TABLES = (
    "table1_main",
    "table2_ablation",
    "table3_sam",
    "table4_scr",
    "table5_dinov2",
    "table6_metrics_224",
    "table7_metrics_336",
    "table8_unsupervised",
    "table8_without_names",
    "fig7_sensitivity",
    "table_discrepancies",
    "table_peers",
    "table_peers_slide",
    "table_vocabularies",
    "table_errors",
)


@pytest.fixture(scope="module")
def sheets(paper: Plan, whole_paper: Path) -> dict[str, tuple[list[Line], Sheet]]:
    found = {}
    for name in TABLES:
        lines = lines_of(paper, whole_paper, name)
        found[name] = (lines, sheet_of(paper, paper.tables[name], to_frame(lines)))
    return found


Place = tuple[str, str, str]  # section, row and column


def cells_in(rows: list[list[str]]) -> dict[Place, str]:
    """What the cells of a Markdown table say, without marks, where they say something."""
    said, section = {}, ""
    head, _, *body = [[plain(cell) for cell in row] for row in rows]
    for raw, (label, *texts) in zip(rows[2:], body, strict=True):
        if raw[0].startswith("***"):
            section = label
        else:
            said |= {(section, label, key): x for key, x in zip(head[1:], texts, strict=True) if x}
    return said


def plain(cell: str) -> str:
    """A cell without markup; of a head or a label its first line."""
    cell = re.sub(r"<sup>.*?</sup>|</?sub>|\*\*\*?", "", cell.replace("\N{NO-BREAK SPACE}", " "))
    first, _, below = cell.partition("<br>")
    return re.sub(r"\\(.)", r"\1", f"{first} {below}" if below[:1] in set("[±(") else first)


def expected(sheet: Sheet, says: Callable[[Line], str | None]) -> list[dict[Place, str]]:
    """The same of each panel that has such a cell, from the lines at their places."""
    tables = []
    for panel in sheet.panels:
        frame = panel.cells
        heads = [panel.columns[across].label for across in frame["across"]]
        places = zip(frame["section"], frame["label"], heads, strict=True)
        texts = zip(places, map(says, lines_in(frame)), strict=True)
        tables.append({place: text for place, text in texts if text})
    return [table for table in tables if table]


def said_of_value(line: Line) -> str | None:
    if line.kind in ("quoted", "absent"):
        return line.published
    if line.kind == "flops":
        return f"{line.value:.2f}×"
    if line.metric in OF_LOGITS:  # which have no interval
        return f"{line.value:.2f}"
    return f"{line.value:.2f} ±{(line.ci_high - line.ci_low) / 2:.2f}"


def said_of_difference(line: Line) -> str | None:
    if line.diff is not None:
        return f"{number(line.diff, True)} [{number(line.diff_low)}, {number(line.diff_high)}]"


def said_of_printed(line: Line) -> str | None:
    if line.published and line.kind != "quoted":
        return f"{line.published} ({number(line.delta, True)})"


@pytest.mark.parametrize("name", TABLES)
def test_csv_is_one_line_a_cell(name: str, sheets: dict[str, tuple[list[Line], Sheet]]) -> None:
    lines, _ = sheets[name]
    text = to_csv(to_frame(lines))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(lines)
    assert len({(row["row"], row["benchmark"], row["metric"]) for row in rows}) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        assert None not in row and None not in row.values()
        for column in ("value", "ci_low", "diff_high", "delta"):
            value = getattr(line, column)
            assert row[column] == "" if value is None else abs(float(row[column]) - value) < 6e-5
        assert row["published"] == line.published
    assert "nan" not in text and "None" not in text


@pytest.mark.parametrize("name", TABLES)
def test_markdown_has_every_number_at_its_place_and_in_its_table(
    name: str, sheets: dict[str, tuple[list[Line], Sheet]]
) -> None:
    """Values, differences and what the paper prints: these tables, and exactly these cells."""
    lines, sheet = sheets[name]
    text = to_markdown(sheet)
    shown: dict[str, list[dict[Place, str]]] = {"val": [], "Diff": [], "What": []}
    for above, rows in markdown_tables(text):
        assert len({len(row) for row in rows}) == 1
        kind = above[2:6] if above[2:6] in shown else "val"
        shown[kind].append(cells_in(rows))
    assert shown["val"] == expected(sheet, said_of_value)
    assert shown["Diff"] == expected(sheet, said_of_difference)
    assert shown["What"] == expected(sheet, said_of_printed)
    assert sum(map(len, shown["Diff"])) == sum(
        line.diff is not None and line.kind != "best" for line in lines
    )
    protocol = "slide" if name.endswith("_slide") else "crop"
    unsupervised = name.startswith("table8")
    rule = "mmseg" if protocol == "slide" or unsupervised else "cliptrase"
    scored = "coco27" if unsupervised else "voc20"
    for fact in (f"protocol {protocol}", f"rule {rule}", "model vit_b16", "6 images", scored):
        assert fact in text
    for fact in ("0123456789+dirty", "95 %"):
        assert fact in text


def test_markdown_looks_as_the_paper_sets_it(sheets: dict[str, tuple[list[Line], Sheet]]) -> None:
    text = to_markdown(sheets["table1_main"][1])
    tables = dict(markdown_tables(text))
    own, differences, printed, quoted = tables.values()
    assert list(tables)[1:3] == ["**Differences**", f"**{PRINTED}**"]
    heads = own[0]
    assert heads == ["", "coco_object", "voc21", "pc60", "coco_stuff", "voc20", "pc59", "pc459",
                     "ade150", "ade847", "avg"]  # fmt: skip
    assert (
        " · with background: coco_object, voc21, pc60 · without background: coco_stuff, voc20, "
        "pc59, pc459, ade150, ade847\n"
    ) in text
    assert re.fullmatch(r"[\d.]+<br><sub>±[\d.]+</sub>", own[2][1]), "ten columns: nothing beside"
    labels = [row[0] for row in own[2:]]
    assert labels == ["CLIP", "SCLIP", "CLIPtrase"]
    assert [row[0] for row in differences[2:]] == [
        "SCLIP<br><sub>to CLIP</sub>", "CLIPtrase<br><sub>to SCLIP</sub>",
    ]  # fmt: skip
    assert [row[0] for row in printed[2:]] == labels
    assert quoted[0] == heads[:-1]
    assert [row[0] for row in quoted[2:]] == [
        "GroupViT", "MaskCLIP", "TCL", "CAT-Seg", "DeOP", "OVSeg", "SAN", "***training-free***",
        "CLIP-Surgery",
    ]  # fmt: skip
    assert quoted[2][1] == "27.5"
    tables = dict(markdown_tables(to_markdown(sheets["fig7_sensitivity"][1])))
    grid, to_chosen = tables.values()
    assert list(tables)[1] == "**Differences to eps=0.7 min_samples=3**"
    assert [row[0] for row in to_chosen] == [row[0] for row in grid]
    assert to_chosen[5][2] == "" and "†" not in str(to_chosen)
    assert grid[0][1:] == ["2", "3", "4", "5", "6", "7", "8", "10"]
    assert [row[0] for row in grid[2:]] == ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1", "1.1"]
    assert [row[0] for row in grid if "†" in "".join(row)] == ["0.7"]
    assert "†" in grid[5][2]
    for _, metrics in markdown_tables(to_markdown(sheets["table6_metrics_224"][1])):
        sections = [row[0] for row in metrics if row[0].startswith("***")]
        assert sections == ["***pAcc***", "***mAcc***", "***fwIoU***", "***mIoU***"]
    text = to_markdown(sheets["table2_ablation"][1])
    (_, ablation), heads = markdown_tables(text)[0], table_titled(text, "Differences")[0]
    assert ablation[0][1:] == ["coco_stuff", "voc20", "pc59", "ade150", "avg", "FLOPs"]
    assert heads == ablation[0][:-1], "operations have no difference"
    assert re.fullmatch(r"[\d.]+\xa0<sub>±[\d.]+</sub>", ablation[3][1])


def test_bold_is_the_best_of_its_column_and_section(
    sheets: dict[str, tuple[list[Line], Sheet]],
) -> None:
    _, sheet = sheets["table2_ablation"]
    (panel,) = sheet.panels
    for (_, place), cells in panel.cells.groupby(["section", "place"]):
        values = cells["value"].round(2)
        assert cells["best"].tolist() == ((values == values.max()) & (place != "flops")).tolist()
    assert to_markdown(sheet).count("**") > 2 * panel.cells["section"].nunique()


def test_notes_where_the_paper_contradicts_itself(
    sheets: dict[str, tuple[list[Line], Sheet]],
) -> None:
    _, sheet = sheets["table1_main"]
    texts = sheet.notes
    mark = texts["table 7 prints 10.11"]
    text = to_markdown(sheet)
    assert f"<sup>{mark}</sup>" in table_titled(text, PRINTED)[-1][7]
    assert text.count(f"<sup>{mark}</sup>") == 2, "at the printed number, and its footnote"
    assert f"<sup>{mark}</sup> table 7 prints 10.11" in text
    marks = re.findall(r"(?m)^<sup>([a-z]+)</sup> ", text)
    assert marks == sorted(marks) == list(dict.fromkeys(re.findall("<sup>([a-z]+)</sup>", text)))
    assert "quoted elsewhere as PC60" in texts and "training-free; TCL re-evaluation" in texts


def test_missing_cells_show_their_reason(paper: Plan, tmp_path: Path) -> None:
    lines = lines_of(paper, tmp_path, "table1_main", tmp_path)
    text = to_markdown(sheet_of(paper, paper.tables["table1_main"], to_frame(lines)))
    assert text.count("dataset voc2012 is not prepared") == 1
    assert "30 of 30 cells are missing." in text
    assert table_titled(text, PRINTED)[-1][2] == "53.04" and "Differences" not in text
    latex_is_sound(to_latex(sheet_of(paper, paper.tables["table1_main"], to_frame(lines))))


def test_numbers_of_different_protocols_are_never_in_one_column(
    paper: Plan, sheets: dict[str, tuple[list[Line], Sheet]]
) -> None:
    name = "table6_metrics_224"
    lines = [line for line in sheets[name][0] if line.metric == "mIoU"]
    mixed = [replace(line, protocol="slide") if line.row == "SCLIP" else line for line in lines]
    panels = sheet_of(paper, paper.tables[name], to_frame(mixed)).panels
    assert [set(panel.cells["protocol"]) for panel in panels] == [{"crop"}, {"slide"}]
    _, quoted = sheets["table1_main"][1].panels
    assert set(quoted.cells["kind"]) == {"quoted"}


# --- LaTeX: no compiler here, so its structure -----------------------------------------------

COMMANDS = {
    "begin", "end", "centering", "setlength", "tabcolsep", "renewcommand", "arraystretch",
    "caption", "label", "footnotesize", "toprule", "midrule", "bottomrule", "cmidrule",
    "multicolumn", "textit", "textbf", "textsuperscript", "tiny", "quad", "par", "smallskip",
    "scriptsize", "raggedright", "addlinespace", "textwidth", "times", "dagger", "cdot", "Delta",
    "approx", "pm",
}  # fmt: skip


def latex_is_sound(text: str) -> None:
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[{}%$&#_]", "", body)
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[#%~^]", bare)
    assert "_" not in re.sub(r"\\label\{[^}]*\}", "", bare)
    assert set(re.findall(r"\\([a-zA-Z]+)", body)) <= COMMANDS
    assert body.isascii()
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{([^}]*)\}", body):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    for columns, inside in re.findall(
        r"\\begin\{tabular\}\{(l[rl]*)\}(.*?)\\end\{tabular\}", body, re.S
    ):
        for row in inside.split(r"\\"):
            row = re.sub(
                r"\\(addlinespace\[2pt\]|toprule|midrule|bottomrule|cmidrule\(lr\)\{\d+-\d+\})",
                "",
                row,
            )
            if not row.strip():
                continue
            cells = re.split(r"(?<!\\)&", row)
            spans = [re.search(r"\\multicolumn\{(\d+)\}", cell) for cell in cells]
            assert sum(int(span[1]) if span else 1 for span in spans) == len(columns)


@pytest.mark.parametrize("name", TABLES)
def test_latex_is_sound(name: str, sheets: dict[str, tuple[list[Line], Sheet]]) -> None:
    lines, sheet = sheets[name]
    text = to_latex(sheet)
    latex_is_sound(text)
    assert text.count(r"\begin{tabular}") == len(markdown_tables(to_markdown(sheet)))
    for line in lines:
        if line.kind == "run" and line.metric not in OF_LOGITS:
            half = (line.ci_high - line.ci_low) / 2
            mark = r"\}?(\\textsuperscript\{.*?\}+)?"
            assert re.search(rf"{line.value:.2f}{mark} {{\\tiny \$\\pm\${half:.2f}}}", text)
        if line.diff is not None and line.kind != "best":
            assert f"& {tex(number(line.diff, True))}" in text
            ends = f"[{number(line.diff_low)}, {number(line.diff_high)}]"
            assert rf"{{\tiny {tex(ends)}}}" in text
        if line.published and line.kind in ("run", "avg"):
            delta = tex(f"({number(line.delta, True)})")
            assert line.published in text and rf" {{\tiny {delta}}}" in text


@given(st.text(alphabet=st.characters(codec="ascii", min_codepoint=32, max_codepoint=126)))
def test_tex_escapes_everything_that_latex_reads(text: str) -> None:
    escaped = re.sub(r"\\[{}%$&#_]", "", tex(text))
    escaped = re.sub(r"\\text[a-z]+\{\}", "", escaped)
    assert not set(escaped) & set("\\{}%$&#_^~")


# --- the command -----------------------------------------------------------------------------


def again_without_torch(results: Path) -> None:
    """The command in a process of its own, which must load nothing that takes long."""
    code = (
        "import sys; from cliptrase.publish.__main__ import main;"
        f"main(['tables', 'paper', '--results', {str(results)!r}]);"
        "heavy = {'torch', 'hydra', 'datasets', 'matplotlib', 'wandb', 'sklearn'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_writes_the_same_bytes_twice_and_starts_no_run(
    whole_paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").symlink_to(whole_paper / "runs")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    main(["paper", "--results", str(tmp_path), "--data", str(tmp_path)])
    out = capsys.readouterr().out.splitlines()
    assert out[:15] == [
        "table1_main: 30 of 30 cells",
        "table2_ablation: 94 of 94 cells",
        "table3_sam: 80 of 80 cells",
        "table4_scr: 60 of 60 cells",
        "table5_dinov2: 40 of 40 cells",
        "table6_metrics_224: 120 of 120 cells",
        "table7_metrics_336: 120 of 120 cells",
        "table8_unsupervised: 10 of 10 cells",
        "table8_without_names: 2 of 2 cells",
        "fig7_sensitivity: 65 of 65 cells",
        "table_discrepancies: 97 of 97 cells",
        "table_peers: 181 of 181 cells",
        "table_peers_slide: 144 of 144 cells",
        "table_vocabularies: 228 of 228 cells",
        "table_errors: 396 of 396 cells",
    ]
    assert out[15] == "0 cells of 1667 missing"
    written = {path.name: path.read_bytes() for path in (tmp_path / "paper/tables").iterdir()}
    files = [f"{table}.{kind}" for table in TABLES for kind in ("csv", "md", "tex")]
    assert sorted(written) == sorted([".rendered.json", *files])
    again_without_torch(tmp_path)
    assert written == {p.name: p.read_bytes() for p in (tmp_path / "paper/tables").iterdir()}
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}


def test_the_command_counts_what_is_missing_and_why(
    paper: Plan, make: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (name,) = {
        cell.run
        for row in paper.tables["table1_main"].rows
        for cell in row.cells
        if (row.name, cell.benchmark) == ("CLIP", "voc20")
    }
    make(paper, tmp_path, [name])
    main(["paper", "--results", str(tmp_path), "--data", str(tmp_path), "--table", "table1_main"])
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["table1_main: 1 of 30 cells", "29 cells of 30 missing"]
    assert any(line.startswith("  6: dataset coco is not prepared") for line in out)
    assert [p.name for p in sorted((tmp_path / "paper/tables").iterdir())] == [
        ".rendered.json",
        "table1_main.csv",
        "table1_main.md",
        "table1_main.tex",
    ]


def test_the_summary_counts_what_was_not_asked_for(
    paper: Plan, make: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(paper, tmp_path, [name for name in paper.runs if name.startswith("ade847.clip.")])
    where = ["--results", str(tmp_path), "--data", str(tmp_path), "--table", "table1_main"]
    main(["paper", *where, "--benchmarks", "[voc20]"])
    out = capsys.readouterr().out.splitlines()
    assert "  20: not asked for (benchmarks=voc20)" in out
    assert sum("dataset voc2012 is not prepared" in line for line in out) == 1
    assert not any("dataset coco " in line for line in out)
    with pytest.raises(SystemExit):
        main(["paper", *where, "--benchmarks", "voc2"])
    assert "no benchmark 'voc2'; did you mean 'voc2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["paper", *where, "--benchmarks", ""])
    assert "--benchmarks=: must be a list of benchmarks" in capsys.readouterr().err


def test_unknown_names_are_refused_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["paperr", "--results", str(tmp_path)])
    assert exit_.value.code == 1 and "did you mean 'paper'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        main(["paper", "--results", str(tmp_path), "--table", "table1"])
    assert exit_.value.code == 1 and "table1_main" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_what_a_peer_prints_stands_beside_its_run(tmp_path: Path) -> None:
    suite = load("peers")
    make_runs(suite, tmp_path)
    lines = lines_of(suite, tmp_path, "table_peers_own")
    sheet = sheet_of(suite, suite.tables["table_peers_own"], to_frame(lines))
    printed = {(line.row, line.benchmark): line.published for line in lines}
    assert printed["SCLIP", "voc21_standard"] == "59.63"
    assert printed["ResCLIP (RCS)", "voc20"] == "85.5"
    assert printed["SFP", "coco_stuff"] == printed["GEM", "pc60"] == ""  # not read anywhere
    assert {panel.title for panel in sheet.panels} >= {
        "protocol slide",
        "protocol slide, logit_scale 65",
    }
    assert all(line.delta == line.value - float(line.published) for line in lines if line.published)


def test_names_and_runs_are_looked_at_before_pandas_is_imported(tmp_path: Path) -> None:
    commands = [
        ["tables", "paperr"],
        ["tables", "paper", "--table", "table1"],
        ["tables", "paper", "--benchmarks", "voc2"],
        ["tables", "smoke"],
        ["figures", "paperr"],
        ["figures", "smoke"],
        ["publish", "paperr"],
        ["publish", "paper", "tracking.mod=offline"],
        ["publish", "smoke"],
    ]
    code = (
        "import contextlib, sys; from cliptrase.cli import main\n"
        f"for words in {commands}:\n"
        "    with contextlib.suppress(SystemExit): main(words)\n"
        "    heavy = {'torch', 'pandas', 'matplotlib', 'wandb'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(commands) and all(line.startswith("error: ") for line in said)


def test_no_such_step_is_a_usage_error() -> None:
    from cliptrase.publish.__main__ import main as steps

    with pytest.raises(SystemExit) as exit_:
        steps(["table", "paper"])
    assert exit_.value.code == 2


def test_a_full_disk_leaves_the_old_table(
    paper: Plan, whole_paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliptrase.publish.tables.command import render

    shelf = Shelf(paper, whole_paper, tmp_path)
    table = paper.tables["table1_main"]
    render(paper, shelf, table, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="no space left"):
        render(paper, shelf, table, tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
