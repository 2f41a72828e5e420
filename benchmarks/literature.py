"""published/literature.csv as docs/literature.md: what papers print for a method and a benchmark.

`python -m benchmarks.literature` writes the page; `--check` says whether it is what would be
written. No number is computed here.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from cliptrase.errors import UserError, nearest
from cliptrase.files import atomic_write
from cliptrase.resources import resource

PAGE = Path(__file__).resolve().parents[1] / "docs" / "literature.md"
BENCHMARKS = (  # the columns, and how the literature writes them
    ("voc21_standard", "VOC21"), ("pc60", "PC60"), ("coco_object_standard", "Object"),
    ("voc20", "VOC20"), ("pc59", "PC59"), ("coco_stuff", "Stuff"), ("cityscapes19", "City"),
    ("ade150", "ADE"), ("ade847", "ADE847"), ("pc459", "PC459"),
    ("voc21", "`voc21`"), ("coco_object", "`coco_object`"),
)  # fmt: skip
READ = ("paper", "readme", "notes")
FAR = Decimal("0.5")  # points: smaller disagreements are counted, not listed
BASE = ("", "ViT-B", "ViT-B/16")  # sizes that share a row

HEAD = """\
# What the literature prints

`python -m benchmarks.literature` renders this page from
[published/literature.csv](../published/literature.csv), and `make check` holds it to that file. The
file has one line for each value (mIoU, per cent): the method, our name of the benchmark, the model,
the protocol and the words as far as the source says them, the table, the paper, and the text in
which the value was read. An empty cell means that the source does not say.

{lines} values of {methods} methods and sizes, as {papers} papers or repositories print them. Those
of {first} were read in the text of the paper or the README of its authors (`read` is `paper` or
`readme`),
those of {notes} only in notes that others wrote about them (`notes`). Such notes are machine-made
in part; two were left out because they contradict other texts. Rows that stand under the wrong
heads of their table (GroupViT and ReCo in RAG-OVS) or repeat another method's row (CLIP Surgery in
LHT-CLIP) were left out too. Of some texts no address is known; `paper` names them.

The numbers do not share a protocol. Most follow SCLIP (short side 336, windows of 224, stride 112);
CLIPtrase crops; ClearCLIP has 448; ProxyCLIP has windows of 336; the words differ as well. `VOC21`
and `Object` are the usual definitions (`voc21_standard`, `coco_object_standard`), the last two
columns those of the CLIPtrase paper ([protocols.md](protocols.md)). What a method's authors print,
or papers that quote them, stands beside our runs in the table `table_peers_own` of `suite=peers`,
from [published/peers.csv](../published/peers.csv).

## Ranges

From the smallest to the largest printed value, and the number of papers. ViT-B/16 or not said,
unless the row says more. *Italic*: read in notes alone; where there is first-hand text, notes do
not count. † trained, the others train nothing. A method on top of another (`SCLIP + FreeCP`) is in
the file only; PAMR is post-processing.

"""
BETWEEN = """
## Where papers disagree

Values read in a paper or a README, often quoted there from another paper, that differ by {far} or
more for one method and one benchmark. {small} smaller
disagreements are in the file. The table does not say who is right: protocol, words, model and
post-processing differ, and papers copy numbers of another setting. (With PAMR, SCLIP and NACLIP are
rows of their own above; T2S prints NACLIP's numbers with PAMR as NACLIP's.)

| method | benchmark | who prints what |
|---|---|---|
"""


@dataclass(frozen=True)
class Value:
    """One printed value. `text` keeps its digits; `row` is the method, and its size if not base."""

    row: str
    benchmark: str
    text: str
    trained: bool
    paper: str
    read: str

    @property
    def first_hand(self) -> bool:
        return self.read != "notes"


def read_literature() -> list[Value]:
    """The lines of published/literature.csv. Raises UserError naming the line that is wrong."""
    path, values, seen = resource("published", "literature.csv"), list[Value](), set[str]()
    known = [name for name, _ in BENCHMARKS]
    with open(path, encoding="utf-8", newline="") as file:
        for number, line in enumerate(csv.DictReader(file), start=2):
            where = f"{path.name}, line {number}"
            for key in ("method", "value", "paper", "table", "source"):
                if not line[key].strip():
                    raise UserError(f"{where}: {key} is empty")
            if line["benchmark"] not in known:
                hint = nearest(line["benchmark"], known)
                raise UserError(f"{where}: unknown benchmark {line['benchmark']!r}; {hint}")
            if line["read"] not in READ:
                raise UserError(f"{where}: read={line['read']!r}; {nearest(line['read'], READ)}")
            if not 0 <= Decimal(line["value"]) <= 100:
                raise UserError(f"{where}: value={line['value']}; give a number from 0 to 100")
            key = " / ".join(
                line[each] for each in ("method", "benchmark", "size", "paper", "table")
            )
            if key in seen:
                raise UserError(f"{where}: {key} is listed twice")
            seen.add(key)
            row = line["method"] + f" ({line['size']})" * (line["size"] not in BASE)
            trained = line["trained"] == "yes"
            values.append(
                Value(row, line["benchmark"], line["value"], trained, line["paper"], line["read"])
            )
    return values


def page(values: Sequence[Value]) -> str:
    """docs/literature.md."""
    papers = {value.paper for value in values}
    first = {value.paper for value in values if value.first_hand}
    head = HEAD.format(
        lines=len(values),
        methods=len({value.row for value in values}),
        papers=len(papers),
        first=len(first),
        notes=len(papers - first),
    )
    cells: dict[str, dict[str, list[Value]]] = defaultdict(lambda: defaultdict(list))
    for value in values:
        cells[value.row][value.benchmark].append(value)
    far, near = list[str](), 0
    for row, column in _places(cells):
        apart = _disagreement(cells[row][column])
        if apart is None:
            continue
        width, text = apart
        near += width < FAR
        if width >= FAR:
            far.append(f"| {row} | {dict(BENCHMARKS)[column]} | {text} |")
    between = BETWEEN.format(far=FAR, small=near)
    return head + "\n".join(_ranges(cells)) + "\n" + between + "\n".join(far) + "\n"


def _shown(row: str) -> bool:
    return " + " not in row.replace(" + PAMR", "")


def _places(cells: dict[str, dict[str, list[Value]]]) -> Iterator[tuple[str, str]]:
    """Rows and columns of the page, in its order."""
    for row in sorted(cells, key=str.casefold):
        for column, _ in BENCHMARKS:
            if column in cells[row] and _shown(row):
                yield row, column


def _ranges(cells: dict[str, dict[str, list[Value]]]) -> Iterator[str]:
    """The table of ranges."""
    yield "| | " + " | ".join(label for _, label in BENCHMARKS) + " |"
    yield "|---" * (len(BENCHMARKS) + 1) + "|"
    for row in dict.fromkeys(row for row, _ in _places(cells)):
        trained = any(value.trained for values in cells[row].values() for value in values)
        texts = [_range(cells[row].get(column, [])) for column, _ in BENCHMARKS]
        yield f"| {row}{' †' * trained} | " + " | ".join(texts) + " |"


def _range(values: list[Value]) -> str:
    """`51.8 – 59.76 (7)`: smallest, largest, number of papers; slanted where notes alone say it."""
    if not values:
        return ""
    first_hand = [value for value in values if value.first_hand]
    counted = first_hand or values
    texts = sorted((value.text for value in counted), key=Decimal)
    ends = texts[0] if _same(texts[0], texts[-1]) else f"{texts[0]} – {texts[-1]}"
    count = len({value.paper for value in counted})
    return f"{ends} ({count})" if first_hand else f"*{ends}* ({count})"


def _same(one: str, other: str) -> bool:
    """Whether two printed values may be one number, rounded to different digits."""
    a, b = Decimal(one), Decimal(other)
    digits = min(-int(each.as_tuple().exponent) for each in (a, b))
    return abs(a - b) <= Decimal(5).scaleb(-digits - 1)


def _disagreement(values: list[Value]) -> tuple[Decimal, str] | None:
    """How far first-hand values are apart, and `59.1 (DeCLIP, FreeCP); 59.63 (SCLIP README)`."""
    said: dict[str, list[str]] = {}
    for value in sorted((v for v in values if v.first_hand), key=lambda v: Decimal(v.text)):
        name = value.paper + " README" * (value.read == "readme")
        said.setdefault(value.text, []).append(name)
    texts = list(said)
    if len(texts) < 2 or _same(texts[0], texts[-1]):
        return None
    text = "; ".join(f"{each} ({', '.join(dict.fromkeys(said[each]))})" for each in texts)
    return Decimal(texts[-1]) - Decimal(texts[0]), text


def main(arguments: Sequence[str]) -> None:
    """Writes the page, or (`--check`) refuses one that is out of date."""
    text = page(read_literature())
    if "--check" not in arguments:
        with atomic_write(PAGE, "w") as file:
            file.write(text)
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        raise UserError(f"{PAGE} is out of date: python -m benchmarks.literature")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
