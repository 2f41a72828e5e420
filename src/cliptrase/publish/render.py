"""A sheet as Markdown (renders on any forge) and as LaTeX (needs booktabs only); lines as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from cliptrase.publish.cells import COLUMNS, Line
from cliptrase.publish.layout import DIGITS, MIN_SAMPLES, Column, Entry, Panel, Sheet, TableRow

MINUS, ABSENT = "\N{MINUS SIGN}", "\N{EN DASH}"
WIDE = 7  # from this many columns on, LaTeX puts an interval below its value, not beside it


def to_csv(lines: Iterable[Line]) -> str:
    """Tidy CSV: one cell a line, per cent with four decimals, empty where there is no number."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in distinctly_named(lines):
        writer.writerow([_plain(getattr(line, column)) for column in COLUMNS])
    return buffer.getvalue()


def distinctly_named(lines: Iterable[Line]) -> list[Line]:
    """The lines, a row name that two groups share followed by its group: `base (small images)`."""
    lines = list(lines)
    groups: dict[str, set[str]] = {}
    for line in lines:
        groups.setdefault(line.row, set()).add(line.group)
    shared = {row for row, names in groups.items() if len(names) > 1}

    def named(row: str, group: str) -> str:
        return f"{row} ({group})" if row in shared and group else row

    return [
        replace(line, row=named(line.row, line.group), versus=named(line.versus, line.group))
        for line in lines
    ]


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        text = f"{value:.4f}"
        return "0.0000" if text == "-0.0000" else text
    return str(value)


def number(value: float, sign: bool = False) -> str:
    """31.04 or, with a sign, +2.10 and −2.10 (a real minus sign)."""
    text = f"{value:+.{DIGITS}f}" if sign else f"{value:.{DIGITS}f}"
    if float(text) == 0:
        text = text.replace("-", "+") if sign else text.replace("-", "")
    return text.replace("-", MINUS)


def interval(low: float | None, high: float | None, sign: bool = False) -> str:
    """`[29.83, 32.10]`, or nothing where there is none."""
    if low is None or high is None:
        return ""
    return f"[{number(low, sign)}, {number(high, sign)}]"


# --- Markdown ------------------------------------------------------------------------------


def to_markdown(sheet: Sheet) -> str:
    """The sheet as GitHub-flavoured Markdown."""
    parts = [f"## {sheet.title}", " · ".join(_md(fact) for fact in sheet.facts)]
    for panel in sheet.panels:
        if panel.title:
            parts.append(f"**{_md(panel.title)}**")
        parts.append("\n".join(_md_panel(panel)))
    if sheet.notes:
        parts.append("  \n".join(f"<sup>{mark}</sup> {_md(text)}" for mark, text in sheet.notes))
    parts.append("  \n".join(_md(remark) for remark in sheet.remarks))
    return "\n\n".join(parts) + "\n"


def _md_panel(panel: Panel) -> list[str]:
    grid = panel.columns[0].group == MIN_SAMPLES
    corner = f"{panel.corner} ↓ {MIN_SAMPLES} →" if grid else panel.corner
    head = [_md(corner)] + [_md_head(column) for column in panel.columns]
    rows = [_md_line(head), _md_line(["---", *("---:" for _ in panel.columns)])]
    for section in panel.sections:
        if section.title:
            rows.append(_md_line([f"***{_md(section.title)}***", *("" for _ in panel.columns)]))
        for row in section.rows:
            label = _md(row.label) + _md_marks(row.marks)
            if row.versus:
                label += f"<br><sub>to {_md(row.versus)}</sub>"
            rows.append(_md_line([label, *(_md_entry(entry) for entry in row.entries)]))
    return rows


def _md_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md_head(column: Column) -> str:
    if column.group in ("", MIN_SAMPLES):
        return _md(column.label)
    return f"{_md(column.label)}<br><sub>{_md(column.group)}</sub>"


def _md_entry(entry: Entry | None) -> str:
    if entry is None:
        return ""
    line = entry.line
    marks = _md_marks(entry.marks)
    if line.kind == "quoted":
        return f"{line.published}{marks}"
    if line.metric == "flops":
        pieces = [ABSENT if line.value is None else f"{number(line.value)}×"]
    elif line.value is None:
        pieces = ["" if line.kind == "absent" else ABSENT]
    else:
        value = number(line.value)
        pieces = [f"**{value}**" if entry.best else value]
        if line.ci_low is not None:
            pieces[0] += f" {interval(line.ci_low, line.ci_high)}"
    pieces[0] += marks
    if line.diff is not None:
        difference = f"{number(line.diff, True)} {interval(line.diff_low, line.diff_high, True)}"
        pieces.append(f"<sub>{difference.strip()}</sub>")
    if line.published:
        delta = "" if line.delta is None else f" ({number(line.delta, True)})"
        pieces.append(f"<sub>paper {line.published}{delta}</sub>")
    return "<br>".join(piece.replace(" ", "\N{NO-BREAK SPACE}") for piece in pieces)


def _md_marks(marks: Sequence[str]) -> str:
    return f"<sup>{','.join(marks)}</sup>" if marks else ""


def _md(text: str) -> str:
    """Escape what Markdown would read as markup; an underscore inside a word is not markup."""
    text = re.sub(r"([\\`*|<>\[\]])", r"\\\1", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


# --- LaTeX ---------------------------------------------------------------------------------

_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "Δ": r"$\Delta$",
    "†": r"$\dagger$",
    "√": r"$\surd$",
    "…": r"\ldots{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{NO-BREAK SPACE}": "~",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
}


def tex(text: str) -> str:
    """Escape LaTeX's special characters; letters of other alphabets are left to its UTF-8."""
    return "".join(_TEX.get(char, char) for char in text)


def to_latex(sheet: Sheet) -> str:
    """The sheet as one `table*` float. Only booktabs is needed in the preamble."""
    title = re.sub(r"^(Table|Figure) \d+\. *", "", sheet.title)
    facts = "; ".join(sheet.facts)
    out = [
        f"% {sheet.name}: made by `cliptrase tables`; needs \\usepackage{{booktabs}}",
        r"\begin{table*}[t]",
        r"\centering",
        r"\renewcommand{\arraystretch}{0.85}",
        rf"\caption{{{tex(title)} ({tex(facts)}).}}",
        rf"\label{{tab:{sheet.name}}}",
    ]
    for panel in sheet.panels:
        if panel.title:
            out += [rf"\par\smallskip{{\footnotesize {tex(panel.title)}}}\par\smallskip"]
        out += _tex_panel(panel)
    out.append(r"\par\smallskip")
    out.append(r"\begin{minipage}{\textwidth}\scriptsize\raggedright")
    out += [rf"\textsuperscript{{{tex(mark)}}} {tex(text)}\par" for mark, text in sheet.notes]
    out += [rf"{tex(remark)}\par" for remark in sheet.remarks]
    out += [r"\end{minipage}", r"\end{table*}"]
    return "\n".join(out) + "\n"


def _tex_panel(panel: Panel) -> list[str]:
    width = len(panel.columns)
    tight = width > WIDE + 1 and any(line.ci_low is not None for line in _lines(panel))
    out = [rf"\footnotesize\setlength{{\tabcolsep}}{{{'1pt' if tight else '3pt'}}}"]
    out += [rf"\begin{{tabular}}{{l{'r' * width}}}", r"\toprule"]
    out += _tex_groups(panel.columns)
    out.append(_tex_line([tex(panel.corner), *(tex(column.label) for column in panel.columns)]))
    for section in panel.sections:
        out.append(r"\midrule")
        if section.title:
            out.append(rf"\multicolumn{{{width + 1}}}{{l}}{{\textit{{{tex(section.title)}}}}} \\")
        above: list[str] = []
        for row in section.rows:
            if len(above) > 1:
                out.append(r"\addlinespace[2pt]")
            above = _tex_row(row, stacked=width >= WIDE)
            out += above
    return [*out, r"\bottomrule", r"\end{tabular}"]


def _lines(panel: Panel) -> Iterator[Line]:
    entries = (entry for part in panel.sections for row in part.rows for entry in row.entries)
    return (entry.line for entry in entries if entry is not None)


def _tex_groups(columns: tuple[Column, ...]) -> list[str]:
    """The headings that span columns, with a rule under each."""
    if not any(column.group for column in columns):
        return []
    spans: list[tuple[str, int, int]] = []
    for position, column in enumerate(columns, start=2):
        if spans and spans[-1][0] == column.group:
            spans[-1] = (column.group, spans[-1][1], position)
        else:
            spans.append((column.group, position, position))
    cells = [
        rf"\multicolumn{{{last - first + 1}}}{{c}}{{{tex(name)}}}" for name, first, last in spans
    ]
    rules = "".join(rf"\cmidrule(lr){{{first}-{last}}}" for name, first, last in spans if name)
    return [_tex_line(["", *cells]), rules]


def _tex_row(row: TableRow, stacked: bool) -> list[str]:
    """A row of values and, below it, rows of intervals, differences and printed numbers."""
    layers = [_tex_entry(entry, stacked) for entry in row.entries]
    heads = {"value": tex(row.label) + _tex_marks(row.marks), "printed": r"\quad paper"}
    if row.versus:
        heads["difference"] = rf"\quad to {tex(row.versus)}"
    out = []
    for layer in ("value", "interval", "difference", "difference interval", "printed"):
        cells = [entry.get(layer, "") for entry in layers]
        if layer == "value" or any(cells):
            small = layer != "value"
            head = heads.get(layer, "")
            cells = [head, *cells]
            out.append(
                _tex_line(rf"{{\tiny {cell}}}" if small and cell else cell for cell in cells)
            )
    return out


def _tex_entry(entry: Entry | None, stacked: bool) -> dict[str, str]:
    """The layers of one cell: which lines of the row it fills, and with what."""
    if entry is None:
        return {}
    line = entry.line
    marks = _tex_marks(entry.marks)
    if line.kind == "quoted":
        return {"value": tex(line.published) + marks}
    layers: dict[str, str] = {}
    if line.value is None:
        layers["value"] = ("" if line.kind == "absent" else "--") + marks
    elif line.metric == "flops":
        layers["value"] = rf"{tex(number(line.value))}$\times$" + marks
    else:
        value = tex(number(line.value))
        layers["value"] = (rf"\textbf{{{value}}}" if entry.best else value) + marks
        spread = tex(interval(line.ci_low, line.ci_high))
        if stacked:
            layers["interval"] = spread
        elif spread:
            layers["value"] += rf" {{\tiny {spread}}}"
    if line.diff is not None:
        # stacked: no room for plus signs in ten columns
        spread = tex(interval(line.diff_low, line.diff_high, sign=not stacked))
        layers["difference"] = tex(number(line.diff, True))
        if stacked:
            layers["difference interval"] = spread
        else:
            layers["difference"] += f" {spread}"
    if line.published:
        delta = "" if line.delta is None else f" ({number(line.delta, True)})"
        layers["printed"] = tex(line.published + delta)
    return layers


def _tex_marks(marks: Sequence[str]) -> str:
    return rf"\textsuperscript{{{tex(','.join(marks))}}}" if marks else ""


def _tex_line(cells: Iterable[str]) -> str:
    # `{}` keeps a first "[" from being read as the optional argument of the `\\` before it
    return "{}" + " & ".join(cells) + r" \\"
