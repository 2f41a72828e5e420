"""Which of the paper's eleven findings hold in a suite's tables: the README's "what the demo says".

`python -m benchmarks.findings [results/shapes/tables]` prints a Markdown table: the difference of
mIoU that the paper prints between two rows, of its averages, and the same difference here, of the
average over the suite's benchmarks, with its 95 % interval (paired, image by image). A finding
holds where the whole interval is above 0; it is reversed where the whole interval is below.
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.publish.tables.printed import read_published


class Finding(NamedTuple):
    """Rows of a table, as its CSV names them, each better than the one before it in the paper."""

    said: str
    table: str
    rows: tuple[str, ...]


FINDINGS = (
    Finding("SCLIP over CLIP", "table1_main", ("CLIP", "SCLIP")),
    Finding("CLIPtrase over SCLIP", "table1_main", ("SCLIP", "CLIPtrase")),
    Finding("+SCR: restored correlation", "table2_ablation", ("CLIP", "+SCR")),
    Finding("+PC: a vote of clusters", "table2_ablation", ("+SCR", "+PC")),
    Finding("+D: denoised", "table2_ablation", ("+PC", "+D")),
    Finding("cosine over inner product", "table2_ablation", ("inner product", "cosine")),
    Finding("prototypes over features", "table2_ablation", ("features", "prototypes")),
    Finding("the last layer over the one before", "table2_ablation", ("layer 11", "layer 12")),
    Finding("336 px over 224 px", "table2_ablation", ("224", "336")),
    Finding("SAM's masks over clusters", "table3_sam", ("SCR+PC+D (as published)", "SCR+D+SAM")),
    Finding(
        "forms of SCR, each over the one before",
        "table4_scr",
        ("without SCR", "self only", "inner product", "cosine", "cosine within ground truth"),
    ),
)


def signed(value: float) -> str:
    """`+1.2`, `−0.3`."""
    return f"{value:+.1f}".replace("-", "−")


def differences(tables: Path, finding: Finding) -> list[tuple[float, float, float]]:
    """Difference and the ends of its interval, for each two rows of a finding that follow another.

    Raises UserError where the table is not there or has no such difference.
    """
    path = tables / f"{finding.table}.csv"
    try:
        lines = pd.read_csv(path, keep_default_na=False, na_values={"diff": [""]})
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; make demo writes it") from None
    averages = lines[(lines["benchmark"] == "avg") & (lines["metric"] == "mIoU")]
    found = []
    for before, after in pairwise(finding.rows):
        chosen = averages[(averages["row"] == after) & (averages["versus"] == before)]
        chosen = chosen[chosen["diff"].notna()]
        if chosen.empty:
            raise UserError(f"{path} has no average difference of {after!r} to {before!r}")
        low, high = float(chosen["diff_low"].iloc[0]), float(chosen["diff_high"].iloc[0])
        found.append((float(chosen["diff"].iloc[0]), low, high))
    return found


def verdict(low: float, high: float) -> str:
    """What an interval says of a difference that the paper has above 0."""
    return "holds" if low > 0 else "reversed" if high < 0 else "not significant"


def table(tables: Path) -> str:
    """The eleven findings, as Markdown."""
    printed = read_published()
    rows = ["| finding | paper | here | |", "|---|---:|---:|---|"]
    for finding in FINDINGS:
        values = [
            printed[finding.table, row.split(" (")[0], "avg", "mIoU"].value for row in finding.rows
        ]
        paper = [after - before for before, after in pairwise(values)]
        found = differences(tables, finding)
        here = [f"{signed(value)} [{signed(low)}, {signed(high)}]" for value, low, high in found]
        said = [verdict(low, high) for _, low, high in found]
        words = said if len(set(said)) > 1 else said[:1]
        cells = (finding.said, *(", ".join(each) for each in (map(signed, paper), here, words)))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="?", type=Path, default=Path("results/shapes/tables"))
    print(table(parser.parse_args(argv).tables))


if __name__ == "__main__":
    main()
