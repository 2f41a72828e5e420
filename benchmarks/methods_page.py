"""The column `cost` of docs/methods.md, from a measurement of a pass of each method.

`python -m benchmarks.methods_page FILE.json`; the file holds `{"ratio": {method: {"median": …}}}`,
a pass of the method in units of CLIP's. Methods that it does not name keep their cell.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from cliptrase.files import atomic_write

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"
ROW = re.compile(r"\| `(\w+)` \|")
COST = 5  # which cell of a row, after the empty one before its first bar


def lines_of(page: str) -> dict[str, list[str]]:
    """Method → the cells of its row, the first one empty: `| a | b |` is ["", "a", "b", ""]."""
    rows = {}
    for line in page.splitlines():
        if match := ROW.match(line):
            rows[match[1]] = [cell.strip() for cell in line.split("|")]
    return rows


def with_costs(page: str, ratios: Mapping[str, float]) -> str:
    """The page with these costs."""
    lines = []
    for line in page.splitlines():
        match = ROW.match(line)
        if match and match[1] in ratios:
            cells = line.split("|")
            cells[COST] = f" {ratios[match[1]]:.2f} "
            line = "|".join(cells)
        lines.append(line)
    return "\n".join(lines) + "\n"


def main(file: str) -> None:
    """Writes the costs of a measurement into the page."""
    measured = json.loads(Path(file).read_text(encoding="utf-8"))["ratio"]
    ratios = {method: spread["median"] for method, spread in measured.items()}
    text = with_costs(PAGE.read_text(encoding="utf-8"), ratios)
    with atomic_write(PAGE, "w") as out:
        out.write(text)


if __name__ == "__main__":
    main(sys.argv[1])
