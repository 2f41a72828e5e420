"""Text is text everywhere: a name that looks like markup, mathematics or a terminal's command."""

import logging
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from cliptrase.errors import PrintableFormatter, UserError, exit_on_user_error, printable
from cliptrase.publish.figures.charts import bars, heat_map, row_bars
from cliptrase.publish.figures.label_maps import Picture, label_maps
from cliptrase.publish.figures.style import SETTINGS, save
from cliptrase.publish.tables.cells import Line, to_frame
from cliptrase.publish.tables.layout import Column, Panel, Sheet
from cliptrase.publish.tables.render import tex, to_latex, to_markdown

ODD = ("$x_1$ and $\\frac{", "_hidden_", "<b>&amp; `code` | a|b ~~c~~ #1", "100 % {ok} ^2 \\n")
TITLE = "<img src=x> $\\frac$ of `it` | & #"


def lines() -> list[Line]:
    return [
        Line(
            "t", name, column, "mIoU", 336, value=9.0, column=column, model="a$b$", protocol="crop"
        )
        for name in ODD
        for column in ("voc20", "my $data$")
    ]


def drawn() -> list[Figure]:
    truth = np.arange(4)[None].repeat(4, axis=0)
    picture = Picture(np.zeros((4, 4, 3), np.uint8), truth, {name: truth for name in ODD[:2]})
    eps = replace(lines()[0], eps=0.7, min_samples=3, benchmark="$a_$")
    frame = to_frame(lines())
    return [
        bars(TITLE, frame),
        row_bars(TITLE, frame),
        heat_map(TITLE, to_frame([eps])),
        label_maps([picture], list(ODD), None, TITLE),
    ]


def test_figures_write_names_as_they_are(tmp_path: Path) -> None:
    """A $ is no mathematics, and a name that begins with _ is in the legend."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = drawn()
        for figure in figures:  # made outside the settings, as by a caller of the library
            save(figure, tmp_path, "figure")
        with matplotlib.rc_context(SETTINGS):
            inside = drawn()[0]
    assert not any(text.get_parse_math() for text in inside.findobj(Text) if text.get_text())
    for figure in (figures[0], figures[1], figures[3]):
        said = {" ".join(text.get_text().split()) for text in figure.findobj(Text)}
        assert set(ODD[:2]) <= said
    assert {text.get_text() for text in figures[3].legends[0].get_texts()} == set(ODD)


def sheet(text: str) -> Sheet:
    """A table in which every word is this text, but for a row that another is compared with."""
    line = Line("t", text, "voc20", "mIoU", 336, value=9.0, column="voc20", diff=1.0, diff_low=0.0,
                diff_high=2.0)  # fmt: skip
    cells = to_frame([line, line]).assign(section=text, label=text, label_marks="", across=0,
                                          to=[text, "other"], down=[0, 1], best=False, marks="a",
                                          diff_marks="", printed_marks="")  # fmt: skip
    panel = Panel(text, text, (Column("voc20", text, text),), cells)
    return Sheet("t", text, (text,), [panel], {text: "a"}, [text])


IN_A_SHEET = 18  # title, fact, note, remark and panel title; in each of two tables corner, column,
# section and two labels, and once the row compared with; in LaTeX each group, in Markdown one line


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("<img src=x>", r"\<img src=x\>"),
        ("$x$", r"\$x\$"),
        ("a | b", r"a \| b"),
        ("`code`", r"\`code\`"),
        ("~~gone~~", r"\~\~gone\~\~"),
        ("&lt; C #", r"\&lt; C \#"),
        ("two\nlines", "two lines"),
        ("\x1b[31mred", r"\\x1b\[31mred"),
    ],
)
def test_markdown_shows_every_text_as_it_is(text: str, markdown: str) -> None:
    shown = to_markdown(sheet(text))
    assert shown.count(markdown) == IN_A_SHEET
    assert shown.startswith(f"## {markdown}\n")
    assert text not in shown.replace(markdown, "")
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1


def test_latex_shows_every_text_as_it_is() -> None:
    shown = to_latex(sheet("50 % & $x_1$ {#} ~^ \\ `q`\n\nnew\x1b"))
    words = (
        r"50 \% \& \$x\_1\$ \{\#\} \textasciitilde{}\textasciicircum{} \textbackslash{} "
        r"\textasciigrave{}q\textasciigrave{} new\textbackslash{}x1b"
    )
    assert shown.count(words) == IN_A_SHEET and "\x1b" not in shown
    assert tex("a\tb\r\nc") == "a b c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("a\rb\x08\x9b31m", r"a\rb\x08\x9b31m"),
        ("jpg.\u202egnp", r"jpg.\u202egnp"),
        ("caf\udce9.jpg", r"caf\udce9.jpg"),
        ("café, ねこ, 👩‍🚀\n\tسگ", "café, ねこ, 👩‍🚀\n\tسگ"),
    ],
)
def test_no_name_steers_the_terminal(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable(text) == shown

    @exit_on_user_error
    def main() -> None:
        raise UserError(f"{text}: no such file")

    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == f"error: {shown}: no such file\n"
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s is odd", (text,), None)
    assert PrintableFormatter("warning: %(message)s").format(record) == f"warning: {shown} is odd"


def test_a_picture_s_name_cannot_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cliptrase.cli import main

    monkeypatch.setattr(sys, "argv", ["cliptrase"])
    with pytest.raises(SystemExit):
        main(["segment", str(tmp_path / "\x1b[2Ja.jpg"), "--classes", "cat, dog"])
    err = capsys.readouterr().err
    assert "\x1b" not in err and r"\x1b[2Ja.jpg" in err
