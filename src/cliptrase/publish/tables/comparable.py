"""Which lines of the tidy frame may stand side by side, in columns or as bars."""

from typing import NamedTuple

import pandas as pd

from cliptrase.plan.tables import in_words


class Comparable(NamedTuple):
    """Lines of one protocol, under one choice of its settings (`slide(short_side=448)`), and of one
    metric rule. Columns, and groups of bars, are of one of these; `title` tells it from the others.
    """

    protocol: str
    rule: str
    title: str
    lines: pd.DataFrame


def comparables(frame: pd.DataFrame) -> list[Comparable]:
    """The lines of a table that may stand side by side, in order of appearance, but for the quoted.

    A row of another rule than most stands with the others only where the row itself sets
    `protocol.rule`: two rules are then compared on purpose.
    """
    lines = frame[frame["kind"] != "quoted"]
    first = lines.sort_values("chooses_rule", kind="stable").drop_duplicates("protocol")
    usual = lines["protocol"].map(dict(zip(first["protocol"], first["rule"], strict=True)))
    rules = lines["rule"].mask(lines["chooses_rule"], usual)
    groups = list(lines.groupby([lines["protocol"], rules], sort=False))
    several_rules = len({protocol for (protocol, _), _ in groups}) < len(groups)
    blocks = []
    for (protocol, rule), part in groups:
        words = " and ".join(in_words(each) for each in protocol.split())
        title = f"protocol {words}" + f", rule {rule}" * several_rules
        blocks.append(Comparable(protocol, rule, title if len(groups) > 1 else "", part))
    return blocks
