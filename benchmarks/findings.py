"""Which of the paper's eleven findings hold in a suite's tables: the README's "what the demo says".

`python -m benchmarks.findings [results/shapes/tables]` prints a Markdown table: the difference of
mIoU that the paper prints between two rows, of its averages, and the same difference here, of the
average over the suite's benchmarks, with its 95 % interval (paired, image by image). A finding
holds where the whole interval is above 0, it is reversed where the whole interval is below, and
else the difference is not significant. Intervals are not corrected for their number.
"""

import argparse
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.publish.tables.printed import Key, Printed, read_published


class Finding(NamedTuple):
    """What the paper says, the table, and pairs of its rows, as its CSV names them: the second is
    the better one in the paper."""

    said: str
    table: str
    pairs: tuple[tuple[str, str], ...]


FINDINGS = (
    Finding("SCLIP over CLIP", "table1_main", (("CLIP", "SCLIP"),)),
    Finding("CLIPtrase over SCLIP", "table1_main", (("SCLIP", "CLIPtrase"),)),
    Finding("+SCR: restored correlation", "table2_ablation", (("CLIP", "+SCR"),)),
    Finding("+PC: a vote of clusters", "table2_ablation", (("+SCR", "+PC"),)),
    Finding("+D: denoised", "table2_ablation", (("+PC", "+D"),)),
    Finding("cosine over inner product", "table2_ablation", (("inner product", "cosine"),)),
    Finding("prototypes over features", "table2_ablation", (("features", "prototypes"),)),
    Finding(
        "the last layer over the one before, two readings",
        "table2_ablation",
        (("layer 11", "layer 12"), ("layer 11, direct", "layer 12, direct")),
    ),
    Finding("336 px over 224 px", "table2_ablation", (("224", "336"),)),
    Finding("SAM's masks over clusters", "table3_sam", (("SCR+PC+D (as published)", "SCR+D+SAM"),)),
    Finding(
        "forms of SCR, each over the one before",
        "table4_scr",
        tuple(
            pairwise(
                (
                    "without SCR",
                    "self only",
                    "inner product",
                    "cosine",
                    "cosine within ground truth",
                )
            )
        ),
    ),
)
# The paper's row, where a row here has another name: two groups have one, or it is another reading.
PRINTED = {
    "SCR+PC+D (as published)": "SCR+PC+D",
    "layer 11, direct": "layer 11",
    "layer 12, direct": "layer 12",
}


def signed(value: float) -> str:
    """`+1.2`, `−0.3`."""
    return f"{value:+z.1f}".replace("-", "−")


def differences(tables: Path, finding: Finding) -> list[tuple[float, float, float]]:
    """Difference and the ends of its interval, for each pair of rows of a finding.

    Raises UserError where the table is not there or has no such difference.
    """
    path = tables / f"{finding.table}.csv"
    try:
        lines = pd.read_csv(path, keep_default_na=False, na_values={"diff": [""]})
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; make demo writes it") from None
    averages = lines[(lines["benchmark"] == "avg") & (lines["metric"] == "mIoU")]
    found = []
    for before, after in finding.pairs:
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


def printed(finding: Finding, values: Mapping[Key, Printed]) -> list[float]:
    """The differences of the averages that the paper prints, for each pair of rows of a finding."""

    def value(row: str) -> float:
        return values[finding.table, PRINTED.get(row, row), "avg", "mIoU"].value

    return [value(after) - value(before) for before, after in finding.pairs]


def joined(texts: list[str]) -> str:
    """The texts, or the one where all are the same."""
    return ", ".join(texts if len(set(texts)) > 1 else texts[:1])


def table(tables: Path) -> str:
    """The eleven findings, as Markdown."""
    rows = ["| finding | paper | here | |", "|---|---:|---:|---|"]
    values = read_published()
    for finding in FINDINGS:
        found = differences(tables, finding)
        here = [f"{signed(value)} [{signed(low)}, {signed(high)}]" for value, low, high in found]
        said = [verdict(low, high) for _, low, high in found]
        paper = [signed(value) for value in printed(finding, values)]
        cells = (joined(paper), ", ".join(here), joined(said))
        rows.append(f"| {finding.said} | {' | '.join(cells)} |")
    return "\n".join(rows)


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="?", type=Path, default=Path("results/shapes/tables"))
    print(table(parser.parse_args(argv).tables))


if __name__ == "__main__":
    main()
