"""A sheet as Markdown (renders on any forge) and as LaTeX (needs booktabs only); a frame as CSV.

A panel's cells become text, the text is pivoted to rows × columns, and pandas lays it out.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pandas as pd
from tabulate import DataRow, simple_separated_format

from cliptrase.errors import printable
from cliptrase.publish.cells import COLUMNS
from cliptrase.publish.layout import DIGITS, FLOPS, MIN_SAMPLES, Column, Panel, Sheet

MINUS, ABSENT = "\N{MINUS SIGN}", "\N{EN DASH}"
WIDE = 7  # from this many columns on, LaTeX puts an interval below its value, not beside it


def csv_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The CSV's columns, one cell a line; printed numbers are numbers."""
    table = distinctly_named(frame)[list(COLUMNS)]
    return table.assign(published=pd.to_numeric(table["published"].replace("", None)))


def to_csv(frame: pd.DataFrame) -> str:
    """Tidy CSV: per cent with four decimals, printed numbers as printed, empty where there is no
    number."""
    table = csv_table(frame).assign(published=frame["published"])
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


def on_one_line(text: str) -> str:
    """Text from a YAML or a list of names without line breaks and control characters."""
    return printable(re.sub(r"[\t\n\r]+", " ", text))


def cell_texts(cell: Any, plus_signs: bool = True) -> tuple[str, str, str, str, str]:
    """What a cell says, before markup; "" for what it does not have: its value, the interval of it,
    the difference, the interval of that, and what the paper prints."""
    if cell.kind == "quoted":
        return cell.published, "", "", "", ""
    if pd.isna(cell.value):
        value = "" if cell.kind == "absent" else ABSENT
    else:
        value = number(cell.value) + "×" * (cell.metric == FLOPS)
    delta = "" if pd.isna(cell.delta) else f" ({number(cell.delta, True)})"
    return (
        value,
        interval(cell.ci_low, cell.ci_high),
        "" if pd.isna(cell.diff) else number(cell.diff, True),
        interval(cell.diff_low, cell.diff_high, plus_signs),
        cell.published and cell.published + delta,
    )


def sections_of(panel: Panel) -> Iterator[tuple[str, list[Any]]]:
    """The title of each section, and of each of its rows the first cell, which names the row."""
    rows = panel.cells.drop_duplicates("down").itertuples()
    return ((title, list(section)) for title, section in groupby(rows, lambda row: row.section))


# --- Markdown ------------------------------------------------------------------------------

ROW = DataRow("| ", " | ", " |")
GITHUB = simple_separated_format("|")._replace(
    linebelowheader=lambda widths, _: f"| --- | {' | '.join(['---:'] * (len(widths) - 1))} |",
    headerrow=ROW,
    datarow=ROW,
)


def to_markdown(sheet: Sheet) -> str:
    """The sheet as GitHub-flavoured Markdown."""
    parts = [f"## {_md(sheet.title)}", " · ".join(_md(fact) for fact in sheet.facts)]
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
    for title, section in sections_of(panel):
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
    value, spread, difference, difference_spread, printed = cell_texts(cell)
    value = f"**{value}**" if cell.best else value
    pieces = [f"{value} {spread}".strip() + _md_marks(cell.marks)]
    if difference:
        pieces.append(f"<sub>{f'{difference} {difference_spread}'.strip()}</sub>")
    if printed:
        pieces.append(f"<sub>paper {printed}</sub>")
    return "<br>".join(piece.replace(" ", "\N{NO-BREAK SPACE}") for piece in pieces)


def _md_marks(marks: str) -> str:
    return f"<sup>{marks}</sup>" if marks else ""


def _md(text: str) -> str:
    """Escape what Markdown would read as markup, HTML or mathematics; an underscore inside a word
    is not markup."""
    text = re.sub(r"([\\`*|<>\[\]$~&#])", r"\\\1", on_one_line(text))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


# --- LaTeX ---------------------------------------------------------------------------------

_SYMBOLS = {"×": "times", "·": "cdot", "±": "pm", "≤": "le", "≥": "ge", "≈": "approx"}
_SYMBOLS |= {"Δ": "Delta", "†": "dagger", "√": "surd"}
_WORDS = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "`": "asciigrave"}
_WORDS |= {"<": "less", ">": "greater", "|": "bar"}
_TEX = {
    **{char: rf"\{char}" for char in "{}&%$#_"},
    **{char: rf"\text{name}{{}}" for char, name in _WORDS.items()},
    **{char: rf"$\{name}$" for char, name in _SYMBOLS.items()},
    '"': "''",
    "…": r"\ldots{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{NO-BREAK SPACE}": "~",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
}


def tex(text: str) -> str:
    """Escape LaTeX's special characters; letters of other alphabets are left to its UTF-8."""
    return "".join(_TEX.get(char, char) for char in on_one_line(text))


VALUE, DIFFERENCE, PRINTED = 0, 2, 4  # layers of a row; 1 and 3 are the intervals of 0 and 2


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
            for layer, text in enumerate(_tex_cell(cell, stacked=width >= WIDE))
            if text or layer == VALUE
        ],
        columns=["down", "layer", "across", "text"],
    )
    pivoted = layers.pivot(index=["down", "layer"], columns="across", values="text").fillna("")
    rows = []
    for number_of_section, (title, section) in enumerate(sections_of(panel)):
        before = "\\midrule\n" * (number_of_section > 0)
        if title:
            before += rf"\multicolumn{{{width + 1}}}{{l}}{{\textit{{{tex(title)}}}}} \\" + "\n"
        for row in section:
            labels = {VALUE: tex(row.label) + _tex_marks(row.label_marks)}
            labels |= {PRINTED: r"{\tiny \quad paper}"}
            labels |= {DIFFERENCE: rf"{{\tiny \quad to {tex(row.to)}}}"} if row.to else {}
            layers_of_row = pivoted.loc[row.down]
            for layer, texts in layers_of_row.iterrows():
                # `{}` keeps a first "[" from being read as the optional argument of the `\\` above
                rows.append([before + "{}" + labels.get(layer, ""), *texts])
                before = ""
            before = "\\addlinespace[2pt]\n" * (len(layers_of_row) > 1)
    heads = ["{}" + tex(panel.corner), *(tex(column.label) for column in panel.columns)]
    table = pd.DataFrame(rows, columns=heads)
    tabular = table.to_latex(index=False, escape=False, column_format="l" + "r" * width)
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


def _tex_cell(cell: Any, stacked: bool) -> list[str]:
    """The layers of one cell: what stands in each line of its row."""
    layers = cell_texts(cell, plus_signs=not stacked)  # stacked: ten columns leave no room for them
    value, spread, difference, difference_spread, printed = map(tex, layers)
    value = (rf"\textbf{{{value}}}" if cell.best else value) + _tex_marks(cell.marks)
    if not stacked:
        value += rf" {{\tiny {spread}}}" if spread else ""
        difference = f"{difference} {difference_spread}" if difference else ""
        spread = difference_spread = ""
    return [value, spread, difference, difference_spread, printed]


def _tex_marks(marks: str) -> str:
    return rf"\textsuperscript{{{tex(marks)}}}" if marks else ""
