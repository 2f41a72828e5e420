"""Writes the page of a suite, from the runs that exist: one file that opens from the disk. Starts
no run.

`python -m cliptrase.publish page SUITE`, or `cliptrase page SUITE`.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cliptrase.errors import TURNING, counted, exit_on_user_error, printable
from cliptrase.files import atomic_write
from cliptrase.publish.command_line import add_benchmarks as add_options
from cliptrase.publish.command_line import command_line, planned
from cliptrase.publish.digests import remember
from cliptrase.publish.page import PAGE_FILES

if TYPE_CHECKING:
    from cliptrase.publish.tables.layout import Column

# In a script: what would end its element early; and what turns the direction of a text, as written
ESCAPED = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}
ESCAPED |= {ord(char): f"\\\\u{ord(char):04x}" for char in TURNING}


def page_text(facts: dict[str, Any]) -> str:
    """The page of what `contents.page_facts` says, as HTML. Names are text in it, never markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # 0.1 s: not for --help

    environment = Environment(
        loader=FileSystemLoader(PAGE_FILES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_on_the_page,
    )
    own = {
        "style": (PAGE_FILES / "page.css").read_text(encoding="utf-8"),
        "code": (PAGE_FILES / "page.js").read_text(encoding="utf-8"),
        "data": script_json(facts["script"]),
    }
    return environment.get_template("page.html").render(
        **facts, **own, counted=counted, spans=_spans, names_of=_names_of
    )


def _on_the_page(value: Any) -> Any:
    """Text without control characters; markup and numbers as they are."""
    return printable(value) if type(value) is str else value


def script_json(content: Any) -> str:
    """JSON that may stand in a script element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(ESCAPED)


def _spans(columns: Sequence["Column"]) -> list[tuple[str, int]]:
    """The headings above columns, each with how many it spans."""
    return [(name, len(list(part))) for name, part in groupby(columns, lambda each: each.group)]


def _names_of(benchmark: dict[str, Any], picture: dict[str, Any]) -> str:
    """The classes of a picture's ground truth, the largest first."""
    return ", ".join(benchmark["names"][place] for place in picture["classes"])


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page of a suite, whole or not at all, and print its path."""
    args = command_line("page", __doc__, add_options).parse_args(arguments)
    suite, shelf = planned(args)
    from cliptrase.publish.page.contents import page_facts  # pandas: after what fails quickly

    path = args.results / suite.suite / "index.html"
    text = page_text(page_facts(suite, shelf))
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    remember(path.parent, [path])
    print(path)
