"""A sheet as Markdown (renders on any forge) and as LaTeX (needs booktabs only); a frame as CSV.

A panel's cells become text, the text is pivoted to rows × columns, and pandas lays it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pandas as pd
from tabulate import DataRow, TableFormat

from cliptrase.publish.cells import COLUMNS
from cliptrase.publish.layout import DIGITS, FLOPS, MIN_SAMPLES, Column, Panel, Sheet

MINUS, ABSENT = "\N{MINUS SIGN}", "\N{EN DASH}"
WIDE = 7  # from this many columns on, LaTeX puts an interval below its value, not beside it


def to_csv(frame: pd.DataFrame) -> str:
    """Tidy CSV: one cell a line, per cent with four decimals, empty where there is no number."""
    table = distinctly_named(frame)[list(COLUMNS)]
    numbers = table.select_dtypes("float64")
    table = table.assign(**numbers.mask(numbers.abs() < 0.00005, 0.0))  # no -0.0000
    return table.to_csv(index=False, float_format="%.4f", lineterminator="\n")


def distinctly_named(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines, a row name that two groups share followed by its group: `base (small images)`."""
    groups = frame.groupby("row")["group"].nunique()
    shared = groups.index[groups > 1]
    suffix = (" (" + frame["group"] + ")").where(frame["group"] != "", "")
    names = {
        key: frame[key] + suffix.where(frame[key].isin(shared), "") for key in ("row", "versus")
    }
    return frame.assign(**names)


def number(value: float, sign: bool = False) -> str:
    """31.04 or, with a sign, +2.10 and −2.10 (a real minus sign)."""
    text = f"{value:+.{DIGITS}f}" if sign else f"{value:.{DIGITS}f}"
    if float(text) == 0:
        text = text.replace("-", "+") if sign else text.replace("-", "")
    return text.replace("-", MINUS)


def interval(low: float, high: float, sign: bool = False) -> str:
    """`[29.83, 32.10]`, or nothing where there is none."""
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"[{number(low, sign)}, {number(high, sign)}]"


def _sections(panel: Panel) -> Iterator[tuple[str, list[Any]]]:
    """The title of each section, and of each of its rows the first cell, which names the row."""
    rows = panel.cells.drop_duplicates("down").itertuples()
    return ((title, list(section)) for title, section in groupby(rows, lambda row: row.section))


# --- Markdown ------------------------------------------------------------------------------

GITHUB = TableFormat(
    lineabove=None,
    linebelowheader=lambda widths, _: f"| --- | {' | '.join(['---:'] * (len(widths) - 1))} |",
    linebetweenrows=None,
    linebelow=None,
    headerrow=DataRow("| ", " | ", " |"),
    datarow=DataRow("| ", " | ", " |"),
    padding=0,
    with_header_hide=None,
)


def to_markdown(sheet: Sheet) -> str:
    """The sheet as GitHub-flavoured Markdown."""
    parts = [f"## {sheet.title}", " · ".join(_md(fact) for fact in sheet.facts)]
    for panel in sheet.panels:
        if panel.title:
            parts.append(f"**{_md(panel.title)}**")
        parts.append(_md_panel(panel))
    if sheet.notes:
        notes = sheet.notes.items()
        parts.append("  \n".join(f"<sup>{mark}</sup> {_md(text)}" for text, mark in notes))
    parts.append("  \n".join(_md(remark) for remark in sheet.remarks))
    return "\n\n".join(parts) + "\n"


def _md_panel(panel: Panel) -> str:
    texts = panel.cells.assign(text=[_md_cell(cell) for cell in panel.cells.itertuples()])
    pivoted = texts.pivot(index="down", columns="across", values="text").fillna("")
    rows = []
    for title, section in _sections(panel):
        if title:
            rows.append([f"***{_md(title)}***", *[""] * len(panel.columns)])
        rows += [[_md_label(row), *pivoted.loc[row.down]] for row in section]
    grid = panel.columns[0].group == MIN_SAMPLES
    corner = f"{panel.corner} ↓ {MIN_SAMPLES} →" if grid else panel.corner
    table = pd.DataFrame(rows, columns=[_md(corner), *map(_md_head, panel.columns)])
    return table.to_markdown(index=False, tablefmt=GITHUB, stralign=None, disable_numparse=True)


def _md_head(column: Column) -> str:
    if column.group in ("", MIN_SAMPLES):
        return _md(column.label)
    return f"{_md(column.label)}<br><sub>{_md(column.group)}</sub>"


def _md_label(row: Any) -> str:
    label = _md(row.label) + _md_marks(row.label_marks)
    return label + (f"<br><sub>to {_md(row.to)}</sub>" if row.to else "")


def _md_cell(cell: Any) -> str:
    marks = _md_marks(cell.marks)
    if cell.kind == "quoted":
        return f"{cell.published}{marks}"
    if pd.isna(cell.value):
        pieces = ["" if cell.kind == "absent" else ABSENT]
    elif cell.metric == FLOPS:
        pieces = [f"{number(cell.value)}×"]
    else:
        value = number(cell.value)
        spread = interval(cell.ci_low, cell.ci_high)
        pieces = [(f"**{value}**" if cell.best else value) + (f" {spread}" if spread else "")]
    pieces[0] += marks
    if pd.notna(cell.diff):
        difference = f"{number(cell.diff, True)} {interval(cell.diff_low, cell.diff_high, True)}"
        pieces.append(f"<sub>{difference.strip()}</sub>")
    if cell.published:
        pieces.append(f"<sub>paper {cell.published}{_delta(cell)}</sub>")
    return "<br>".join(piece.replace(" ", "\N{NO-BREAK SPACE}") for piece in pieces)


def _delta(cell: Any) -> str:
    return "" if pd.isna(cell.delta) else f" ({number(cell.delta, True)})"


def _md_marks(marks: str) -> str:
    return f"<sup>{marks}</sup>" if marks else ""


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


VALUE, INTERVAL, DIFFERENCE, DIFFERENCE_INTERVAL, PRINTED = range(5)  # the layers of a row


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
    notes = sheet.notes.items()
    out += [rf"\textsuperscript{{{tex(mark)}}} {tex(text)}\par" for text, mark in notes]
    out += [rf"{tex(remark)}\par" for remark in sheet.remarks]
    out += [r"\end{minipage}", r"\end{table*}"]
    return "\n".join(out) + "\n"


def _tex_panel(panel: Panel) -> list[str]:
    """A row of values and, below it, rows of intervals, differences and printed numbers."""
    width = len(panel.columns)
    layers = pd.DataFrame(
        [
            (cell.down, layer, cell.across, rf"{{\tiny {text}}}" if layer else text)
            for cell in panel.cells.itertuples()
            for layer, text in _tex_cell(cell, stacked=width >= WIDE).items()
            if text or layer == VALUE
        ],
        columns=["down", "layer", "across", "text"],
    )
    pivoted = layers.pivot(index=["down", "layer"], columns="across", values="text").fillna("")
    rows = []
    for number_of_section, (title, section) in enumerate(_sections(panel)):
        before = "\\midrule\n" * (number_of_section > 0)
        if title:
            before += rf"\multicolumn{{{width + 1}}}{{l}}{{\textit{{{tex(title)}}}}} \\" + "\n"
        for row in section:
            labels = _tex_labels(row)
            own = pivoted.loc[row.down]
            for layer, texts in own.iterrows():
                # `{}` keeps a first "[" from being read as the optional argument of the `\\` above
                rows.append([before + "{}" + labels.get(layer, ""), *texts])
                before = ""
            before = "\\addlinespace[2pt]\n" * (len(own) > 1)
    heads = ["{}" + tex(panel.corner), *(tex(column.label) for column in panel.columns)]
    tabular = pd.DataFrame(rows, columns=heads).to_latex(
        index=False, escape=False, column_format="l" + "r" * width
    )
    tight = width > WIDE + 1 and panel.cells["ci_low"].notna().any()
    return [
        rf"\footnotesize\setlength{{\tabcolsep}}{{{'1pt' if tight else '3pt'}}}",
        tabular.replace("\\toprule\n", "\\toprule\n" + _tex_groups(panel.columns), 1).rstrip("\n"),
    ]


def _tex_groups(columns: tuple[Column, ...]) -> str:
    """The headings that span columns, with a rule under each."""
    if not any(column.group for column in columns):
        return ""
    cells, rules, last = ["{}"], "", 1
    for name, spanned in groupby(columns, lambda column: column.group):
        first, last = last + 1, last + len(list(spanned))
        cells.append(rf"\multicolumn{{{last - first + 1}}}{{c}}{{{tex(name)}}}")
        rules += rf"\cmidrule(lr){{{first}-{last}}}" if name else ""
    return " & ".join(cells) + " \\\\\n" + rules + "\n"


def _tex_labels(row: Any) -> dict[int, str]:
    """What stands at the left of each layer of a row."""
    labels = {VALUE: tex(row.label) + _tex_marks(row.label_marks), PRINTED: r"{\tiny \quad paper}"}
    if row.to:
        labels[DIFFERENCE] = rf"{{\tiny \quad to {tex(row.to)}}}"
    return labels


def _tex_cell(cell: Any, stacked: bool) -> dict[int, str]:
    """The layers of one cell: which lines of the row it fills, and with what."""
    marks = _tex_marks(cell.marks)
    if cell.kind == "quoted":
        return {VALUE: tex(cell.published) + marks}
    layers: dict[int, str] = {}
    if pd.isna(cell.value):
        layers[VALUE] = ("" if cell.kind == "absent" else "--") + marks
    elif cell.metric == FLOPS:
        layers[VALUE] = rf"{tex(number(cell.value))}$\times$" + marks
    else:
        value = tex(number(cell.value))
        layers[VALUE] = (rf"\textbf{{{value}}}" if cell.best else value) + marks
        spread = tex(interval(cell.ci_low, cell.ci_high))
        if stacked:
            layers[INTERVAL] = spread
        elif spread:
            layers[VALUE] += rf" {{\tiny {spread}}}"
    if pd.notna(cell.diff):
        # stacked: no room for plus signs in ten columns
        spread = tex(interval(cell.diff_low, cell.diff_high, sign=not stacked))
        layers[DIFFERENCE] = tex(number(cell.diff, True)) + ("" if stacked else f" {spread}")
        if stacked:
            layers[DIFFERENCE_INTERVAL] = spread
    if cell.published:
        layers[PRINTED] = tex(cell.published + _delta(cell))
    return layers


def _tex_marks(marks: str) -> str:
    return rf"\textsuperscript{{{tex(marks)}}}" if marks else ""
