"""Which numbers may stand side by side: of one protocol under the same settings, and of one rule
unless they say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cliptrase.plan.settings import in_words
from cliptrase.publish.cells import Line


@dataclass(frozen=True)
class Frame:
    """A protocol with its settings (`slide(short_side=448)`) and a metric rule.

    Columns, and groups of bars, are of one frame.
    """

    protocol: str
    rule: str


def frames(lines: Sequence[Line]) -> dict[Frame, list[Line]]:
    """The lines of a table by their frame, in order of appearance; quoted rows are in none.

    The rule of a frame is its protocol's first. A row of another rule stands in it only where its
    name has the words `rule <its rule>`: two rules are then compared on purpose. A line that has no
    protocol or rule of its own (an empty cell, an average) goes where the others of its row are.
    """
    own = [line for line in lines if line.kind != "quoted"]
    first: dict[str, str] = {}
    for line in own:
        if line.protocol and line.rule:
            first.setdefault(line.protocol, line.rule)
    homes: dict[tuple[str, str], set[Frame]] = {}
    for line in own:
        if line.protocol and line.rule:
            homes.setdefault((line.group, line.row), set()).add(_frame(line, first))
    found: dict[Frame, list[Line]] = {}
    for line in own:
        if line.protocol and line.rule:
            found.setdefault(_frame(line, first), []).append(line)
            continue
        here = {
            frame
            for frame in homes.get((line.group, line.row), set())
            if line.protocol in ("", frame.protocol)
        }
        alone = Frame(line.protocol, first.get(line.protocol, ""))
        for frame in sorted(here, key=str) or [alone]:
            found.setdefault(frame, []).append(line)
    return found


def titles(found: Sequence[Frame]) -> list[str]:
    """What tells each frame from the others, nothing where there is one."""
    if len(found) < 2:
        return [""] * len(found)
    rules = {frame.protocol: set[str]() for frame in found}
    for frame in found:
        rules[frame.protocol].add(frame.rule)
    several = any(len(names) > 1 for names in rules.values())
    return [
        f"protocol {_words(frame.protocol)}" + (f", rule {frame.rule}" if several else "")
        for frame in found
    ]


def _words(protocol: str) -> str:
    """`slide, short_side 448`; an average over several settings has each of them."""
    return " and ".join(in_words(each) for each in protocol.split())


def _frame(line: Line, first: dict[str, str]) -> Frame:
    its_own = line.rule != first[line.protocol] and not _names_rule(line.row, line.rule)
    return Frame(line.protocol, line.rule if its_own else first[line.protocol])


def _names_rule(row: str, rule: str) -> bool:
    return re.search(rf"(?<!\w)rule {re.escape(rule)}(?!\w)", row) is not None
