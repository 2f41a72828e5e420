"""A sheet as Markdown (renders on any forge) and as LaTeX (needs booktabs only); a frame as CSV.

A panel becomes up to three tables: its values, below them their differences, and what the paper
prints. The cells of each become text, which is pivoted to rows × columns, and pandas lays it out.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import Any

import pandas as pd
from tabulate import DataRow, simple_separated_format

from cliptrase.errors import on_one_line
from cliptrase.publish.tables.cells import COLUMNS
from cliptrase.publish.tables.layout import DIGITS, FLOPS, MIN_SAMPLES, Column, Panel, Sheet

MINUS, ABSENT = "\N{MINUS SIGN}", "\N{EN DASH}"
WIDE = 7  # a table of more columns is set tight: in Markdown nothing stands beside a number


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


# --- the tables of a panel -------------------------------------------------------------------

SAID = ["text", "beside", "below", "marks"]  # of a cell, before markup; "" for what it has not
PRINTED = "What the paper prints; in brackets, ours minus it"


def _value(cell: Any) -> tuple[str, str, str, str]:
    """A value; beside it half the width of its interval."""
    if cell.kind == "quoted":
        return cell.published, "", "", cell.marks
    if pd.isna(cell.value):
        return ABSENT * (cell.kind != "absent"), "", "", cell.marks
    half = "" if pd.isna(cell.ci_low) else f"±{number((cell.ci_high - cell.ci_low) / 2)}"
    return number(cell.value) + "×" * (cell.metric == FLOPS), half, "", cell.marks


def _difference(cell: Any) -> tuple[str, str, str, str]:
    """A difference; below it its interval."""
    if pd.isna(cell.diff):
        return ABSENT * bool(cell.diff_reason), "", "", cell.diff_marks
    ends = interval(cell.diff_low, cell.diff_high)
    return number(cell.diff, True), "", ends, cell.diff_marks


def _printed(cell: Any) -> tuple[str, str, str, str]:
    """What the paper prints where we have a number too; beside it ours minus that."""
    if cell.kind == "quoted":
        return "", "", "", ""
    delta = "" if pd.isna(cell.delta) else f"({number(cell.delta, True)})"
    return cell.published, delta, "", cell.printed_marks


@lru_cache(maxsize=64)  # Markdown and LaTeX have the same
def _tables(panel: Panel) -> tuple[Panel, ...]:
    """The tables of a panel that say something: of values, differences, and printed numbers.

    The row that differences are to is named in the title where it is the same for all.
    """
    cells = panel.cells
    bare = cells.assign(best=False, label_marks="")
    compared = cells["diff"].notna() | (cells["diff_reason"] != "")
    title, to = "Differences", cells["to"]
    if len(rows := to[compared].unique()) == 1:
        title, to = f"{title} to {rows[0]}", ""
    tables = (
        _table(panel, panel.title, cells.assign(to=""), _value),
        _table(panel, title, bare.assign(to=to), _difference),
        _table(panel, PRINTED, bare.assign(to=""), _printed),
    )
    return tuple(table for table in tables if table.columns)


def _table(panel: Panel, title: str, cells: pd.DataFrame, says: Callable[..., Any]) -> Panel:
    """The rows and columns in which a cell says something; `cells` has the columns SAID too."""
    said = pd.DataFrame(map(says, cells.itertuples()), cells.index, SAID)
    cells = cells.assign(**said)[said["text"] + said["marks"] != ""]
    columns = tuple(panel.columns[across] for across in sorted(cells["across"].unique()))
    return replace(panel, title=title, columns=columns, cells=cells)


def _by_place(table: Panel, texts: list[str]) -> pd.DataFrame:
    """Texts of the cells, rows × columns; "" where there is no cell."""
    cells = table.cells.assign(markup=texts)
    return cells.pivot(index="down", columns="across", values="markup").fillna("")


def sections_of(table: Panel) -> Iterator[tuple[str, list[Any]]]:
    """The title of each section, and of each of its rows the first cell, which names the row."""
    rows = table.cells.drop_duplicates("down").itertuples()
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
    facts = [*sheet.facts, *_groups(sheet)]
    parts = [f"## {_md(sheet.title)}", " · ".join(_md(fact) for fact in facts)]
    for table in (table for panel in sheet.panels for table in _tables(panel)):
        parts += [f"**{_md(table.title)}**"] * bool(table.title)
        parts.append(_md_table(table))
    if sheet.notes:
        notes = sheet.notes.items()
        parts.append("  \n".join(f"<sup>{mark}</sup> {_md(text)}" for text, mark in notes))
    parts.append("  \n".join(_md(remark) for remark in sheet.remarks))
    return "\n\n".join(parts) + "\n"


def _md_table(table: Panel) -> str:
    wide = len(table.columns) > WIDE
    placed = _by_place(table, [_md_cell(cell, wide) for cell in table.cells.itertuples()])
    rows = []
    for title, section in sections_of(table):
        if title:
            rows.append([f"***{_md(title)}***", *[""] * len(table.columns)])
        rows += [[_md_label(row), *placed.loc[row.down]] for row in section]
    grid = table.columns[0].group == MIN_SAMPLES
    corner = f"{table.corner} ↓ {MIN_SAMPLES} →" if grid else table.corner
    heads = [_md(corner), *(_md(column.label) for column in table.columns)]
    laid_out = pd.DataFrame(rows, columns=heads)
    return laid_out.to_markdown(index=False, tablefmt=GITHUB, stralign=None, disable_numparse=True)


def _groups(sheet: Sheet) -> list[str]:
    """`with background: voc21, pc60`: the headings that span columns, which Markdown has not."""
    labels: dict[str, dict[str, None]] = {}
    for column in (column for panel in sheet.panels for column in panel.columns):
        labels.setdefault(column.group, {})[column.label] = None
    named = {group: names for group, names in labels.items() if group not in ("", MIN_SAMPLES)}
    return [f"{group}: {', '.join(names)}" for group, names in named.items()]


def _md_label(row: Any) -> str:
    label = _md(row.label) + _md_marks(row.label_marks)
    return label + (f"<br><sub>to {_md(row.to)}</sub>" if row.to else "")


def _md_cell(cell: Any, wide: bool) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    small, space = cell.beside or cell.below, " " if wide else "\N{NO-BREAK SPACE}"
    apart = space if cell.beside and not wide else "<br>"
    small = f"{apart}<sub>{small.replace(' ', space)}</sub>" if small else ""
    return text + _md_marks(cell.marks) + small


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
    for table in (table for panel in sheet.panels for table in _tables(panel)):
        title = rf"\par\smallskip{{\footnotesize {tex(table.title)}}}\par\smallskip"
        out += [title] * bool(table.title) + _tex_table(table)
    out.append(r"\par\smallskip")
    out.append(r"\begin{minipage}{\textwidth}\scriptsize\raggedright")
    notes = sheet.notes.items()
    out += [rf"\textsuperscript{{{tex(mark)}}} {tex(text)}\par" for text, mark in notes]
    out += [rf"{tex(remark)}\par" for remark in sheet.remarks]
    out += [r"\end{minipage}", r"\end{table*}"]
    return "\n".join(out) + "\n"


def _tex_table(table: Panel) -> list[str]:
    """Rows of cells; of differences a row of intervals below each."""
    width, rows = len(table.columns), []
    upper = _by_place(table, [_tex_cell(cell) for cell in table.cells.itertuples()])
    lower = _by_place(table, [_tex_small(tex(text)) for text in table.cells["below"]])
    for number_of_section, (title, section) in enumerate(sections_of(table)):
        before = "\\midrule\n" * (number_of_section > 0)
        if title:
            before += rf"\multicolumn{{{width + 1}}}{{l}}{{\textit{{{tex(title)}}}}} \\" + "\n"
        for row in section:
            # `{}` keeps a first "[" from being read as the optional argument of the `\\` above
            label = before + "{}" + tex(row.label) + _tex_marks(row.label_marks)
            rows.append([label, *upper.loc[row.down]])
            before = ""
            if any(lower.loc[row.down]):
                to = _tex_small(row.to and rf"\quad to {tex(row.to)}")
                rows.append(["{}" + to, *lower.loc[row.down]])
                before = "\\addlinespace[2pt]\n"
    heads = ["{}" + tex(table.corner), *(tex(column.label) for column in table.columns)]
    laid_out = pd.DataFrame(rows, columns=heads)
    tabular = laid_out.to_latex(index=False, escape=False, column_format="l" + "r" * width)
    return [
        rf"\footnotesize\setlength{{\tabcolsep}}{{{'2pt' if width > WIDE else '3pt'}}}",
        tabular.replace("\\toprule\n", "\\toprule\n" + _tex_groups(table.columns), 1).rstrip("\n"),
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


def _tex_cell(cell: Any) -> str:
    text = rf"\textbf{{{tex(cell.text)}}}" if cell.best else tex(cell.text)
    beside = f" {_tex_small(tex(cell.beside))}" if cell.beside else ""
    return text + _tex_marks(cell.marks) + beside


def _tex_small(text: str) -> str:
    return rf"{{\tiny {text}}}" if text else ""


def _tex_marks(marks: str) -> str:
    return rf"\textsuperscript{{{tex(marks)}}}" if marks else ""
