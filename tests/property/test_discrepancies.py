"""docs/discrepancies.md: its figures are those of published.csv and of the demo; the last step from
the paper's text to the released code is the released code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
from tests.few_scenes import write_scenes
from tests.objects import changed

from cliptrase import config
from cliptrase import plan as planning
from cliptrase.data.read.vocabularies import read_names, vocabulary_path
from cliptrase.evaluate.passes import run_pass
from cliptrase.plan import Plan
from cliptrase.publish.tables.printed import read_published

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "discrepancies.md").read_text(encoding="utf-8")
TABLE = "table_discrepancies"
IDS = (1, 2, 4, 5, 6, 7, 9, 11, 12, 13, 19, 21, 22, 23, 25, 26)
PRINTED = read_published()
MIOU_FOUR = ("coco_stuff", "voc20", "pc59", "ade150")
NINE = ("coco_object", "voc21", "pc60", "coco_stuff", "voc20", "pc59", "pc459", "ade150", "ade847")


@pytest.fixture(scope="module")
def paper() -> Plan:
    return planning.load("paper")


# --- the page and what the paper prints ------------------------------------------------------


def text(table: str, row: str, benchmark: str = "avg", metric: str = "mIoU") -> str:
    """A number as the paper prints it."""
    return PRINTED[table, row, benchmark, metric].text


def value(table: str, row: str, benchmark: str = "avg", metric: str = "mIoU") -> float:
    return PRINTED[table, row, benchmark, metric].value


def mean(table: str, row: str, metric: str = "mIoU") -> float:
    own = [n.value for (t, r, b, m), n in PRINTED.items()
           if (t, r, m) == (table, row, metric) and b not in ("avg", "")]  # fmt: skip
    return sum(own) / len(own)


def rounded(number: float) -> str:
    """Two decimals, halves up, as a table's author does it."""
    exact = Decimal(f"{number:.6f}")
    return str(exact.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))


def ahead(table: str, row: str, other: str) -> str:
    return f"{value(table, row) - value(table, other):.2f}"


T1, T2, T3, T4, T5, T6, T7 = (
    "table1_main",
    "table2_ablation",
    "table3_sam",
    "table4_scr",
    "table5_dinov2",
    "table6_metrics_224",
    "table7_metrics_336",
)

# bullet → the numbers that it must state, in its order: those of published.csv and what they give
CONTRADICTIONS: dict[str, Callable[[], list[str]]] = {
    "C-01": lambda: [text(T3, "CLIP"), f"{mean(T3, 'CLIP'):.2f}", text(T1, "CLIP")],
    "C-02": lambda: [text(T2, "+D"), f"{mean(T2, '+D'):.2f}"],
    "C-03": lambda: [text(T1, "SCLIP"), f"{mean(T1, 'SCLIP'):.2f}", text(T7, "SCLIP")],
    "C-04": lambda: [
        text(T3, "SCR+PC+D"),
        f"{mean(T3, 'SCR+PC+D'):.2f}",
        text(T3, "SCR+PC+D", "pc459"),
        text(T1, "CLIPtrase"),
    ],
    "C-05": lambda: [text(T3, "SCR+D+SAM"), f"{mean(T3, 'SCR+D+SAM'):.2f}"],
    "C-06": lambda: [text(T5, "CLIPtrase + DINOv2"), f"{mean(T5, 'CLIPtrase + DINOv2'):.2f}"],
    "C-07": lambda: [text(T2, "+PC"), f"{mean(T2, '+PC'):.3f}"],
    "C-08": lambda: [
        text(T1, "CLIPtrase", "pc459"),
        text(T3, "SCR+PC+D", "pc459"),
        text(T7, "CLIPtrase", "pc459"),
        text(T1, "CLIPtrase"),
        text(T7, "CLIPtrase"),
    ],
    "C-09": lambda: [
        *(text(T2, "CLIP", name) for name in MIOU_FOUR),
        *(text(T6, "CLIP", name) for name in MIOU_FOUR),
    ],
    "C-10": lambda: [
        *(text(T5, "CLIPtrase + DINOv2", name) for name in ("coco_stuff", "pc59", "ade150")),
        *(text(where, row, "voc20") for where, row in ((T5, "CLIPtrase + DINOv2"), (T2, "+SCR"))),
    ],
    "C-11": lambda: [text(T4, "without SCR", "voc20"), text(T6, "CLIP", "voc20")],
    "C-12": lambda: [text(T6, "SCLIP", "voc20"), text(T2, "+SCR", "voc20")],
    "C-13": lambda: [
        text(T7, "CLIPtrase", "pc459"),
        text(T1, "SAN", "pc459"),
        text(T1, "CLIPtrase", "ade847"),
        text(T1, "SAN", "ade847"),
    ],
    "C-14": lambda: ["22.3", ahead(T1, "CLIPtrase", "CLIP"), ahead(T6, "CLIPtrase", "CLIP")],
    "C-15": lambda: [
        f"+{ahead(T6, 'CLIPtrase', 'SCLIP')}",
        f"+{ahead(T7, 'CLIPtrase', 'SCLIP')}",
    ],
    "C-16": lambda: [],
    "C-17": lambda: [text(T6, "CLIPtrase", "ade847"), text(T7, "CLIPtrase", "ade847")],
    "C-18": lambda: [text("fig7_sensitivity", "best", "voc20"), text(T6, "CLIPtrase", "voc20")],
}


def bullets() -> dict[str, str]:
    """id → its bullet's text, over all its lines."""
    found = re.findall(r"^- \*\*(C-\d\d)\*\* (.*?)(?=^\S|\Z)", PAGE, re.M | re.S)
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def numbers(words: str) -> list[str]:
    return re.findall(r"(?<![\d.])\+?\d+\.\d+(?!\d)", words)


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_states_the_numbers_that_are_printed(name: str) -> None:
    assert numbers(bullets()[name]) == CONTRADICTIONS[name]()


def test_every_contradiction_of_the_page_is_recomputed() -> None:
    assert list(bullets()) == list(CONTRADICTIONS)


def test_the_page_leaves_out_no_average_that_its_row_does_not_give() -> None:
    """C-01 to C-07 are all of them; the row of C-02 is printed under five names and twice more."""
    wrong = {
        (table, row): number.text
        for (table, row, benchmark, metric), number in PRINTED.items()
        if benchmark == "avg" and rounded(mean(table, row, metric)) != f"{number.value:.2f}"
    }
    same = {place for place, printed in wrong.items() if printed == text(T2, "+D")}
    assert len([place for place in same if place[0] == T2]) == 5
    assert {table for table, _ in same} == {T2, T4, T5}
    assert wrong.keys() - same == {
        (T3, "CLIP"),
        (T1, "SCLIP"),
        (T3, "SCR+PC+D"),
        (T3, "SCR+D+SAM"),
        (T5, "CLIPtrase + DINOv2"),
        (T2, "+PC"),
    }
    assert "five times" in bullets()["C-02"]


# rows of one method, one size: what is printed of them must agree but for what the page says
SAME = (
    {(T1, "CLIP"), (T3, "CLIP"), (T7, "CLIP")},
    {(T1, "SCLIP"), (T7, "SCLIP")},
    {(T1, "CLIPtrase"), (T3, "SCR+PC+D"), (T7, "CLIPtrase"), (T2, "336")},
    {(T2, "CLIP"), (T6, "CLIP"), (T4, "without SCR")},
    {(T2, "+SCR"), (T4, "cosine")},
    {(T2, "inner product"), (T4, "CLIPtrase, inner product SCR")},
    {(T6, "CLIPtrase"), (T5, "CLIPtrase"), (T4, "CLIPtrase, cosine SCR"),
     *((T2, row) for row in ("+D", "cosine", "prototypes", "224", "layer 12"))},
)  # fmt: skip


def test_the_page_leaves_out_no_cell_that_two_tables_print_differently() -> None:
    different: dict[tuple[str, str], set[str]] = {}
    for rows in SAME:
        for one, other in itertools.combinations(sorted(rows), 2):
            for benchmark in NINE:
                pair = [PRINTED.get((*place, benchmark, "mIoU")) for place in (one, other)]
                if None not in pair and len({number.value for number in pair if number}) > 1:
                    different.setdefault((one[0], other[0]), set()).add(benchmark)
    assert different == {
        (T1, T7): {"pc459"},  # C-08
        (T3, T7): {"pc459"},
        (T2, T6): set(MIOU_FOUR),  # C-09
        (T2, T4): set(MIOU_FOUR),  # C-09 and C-11
        (T4, T6): set(MIOU_FOUR),  # C-11
    }
    assert [text(T2, "CLIP", name) for name in MIOU_FOUR] == [
        f"{value(T7, 'CLIP', name):.2f}" for name in MIOU_FOUR
    ]


def test_words_of_the_contradictions_that_have_no_decimals() -> None:
    assert {b for (t, _, b, _) in PRINTED if t == T1} - {"avg"} == set(NINE)
    assert "ten benchmarks" in bullets()["C-16"] and "nine" in bullets()["C-16"]
    equal = [b for b in MIOU_FOUR if value(T5, "CLIPtrase + DINOv2", b) == value(T2, "+SCR", b)]
    assert equal == ["coco_stuff", "pc59", "ade150"]
    assert value(T2, "+SCR", "voc20") != value(T5, "CLIPtrase + DINOv2", "voc20")


# --- the page, the table and the words -------------------------------------------------------


def test_every_difference_has_its_paragraph_in_order() -> None:
    found = re.findall(r"^### (D-\d\d(?:, D-\d\d)*) ", PAGE, re.M)
    assert ", ".join(found).split(", ") == [f"D-{number:02d}" for number in IDS]
    for part in re.split(r"^### ", PAGE, flags=re.M)[1:]:
        body = part.partition("\n")[2].partition("\n## ")[0]
        assert all(f"**{word}**" in body for word in ("Text:", "Code:", "Worth:")), part[:40]


def worths() -> dict[str, str]:
    """D-… → what its paragraph says that it is worth."""
    parts = (part.partition("\n## ")[0] for part in re.split(r"^### ", PAGE, flags=re.M)[1:])
    return {part[:4]: part.partition("**Worth:**")[2] for part in parts}


def test_what_a_step_is_worth_is_what_the_demo_says() -> None:
    """Of each step, the paired difference of its average; where it has none, no number."""
    demo = (ROOT / "docs" / "demo" / f"{TABLE}.md").read_text(encoding="utf-8")
    demo = demo.replace("\N{NO-BREAK SPACE}", " ")
    rows = [line.split(" | ") for line in demo.splitlines() if line.startswith("| D-")]
    measured: dict[str, str] = {}
    for name, *cells in rows:
        difference = re.match(r"([+−][\d.]+)(?:<sup>≈</sup>)?<br><sub>(\[.*\])</sub>", cells[-1])
        if difference:
            steps = re.findall(r"D-\d\d", name.partition("<br>")[0])
            measured |= dict.fromkeys(steps, " ".join(difference.groups()))
    assert set(measured) == {f"D-{n:02d}" for n in (1, 2, 4, 5, 6, 9, 11, 12, 26)}
    for name, said in worths().items():
        quoted = re.findall(r"[+−]\d+\.\d\d \[.*?\]", said)
        quoted = [re.sub(r"(?<=[\[ ])\+", "", each) for each in quoted]  # signs of the interval
        assert quoted == ([measured[name]] if name in measured else []), name


def test_the_steps_are_in_the_order_of_the_page(paper: Plan) -> None:
    rows = [row.name for row in paper.tables[TABLE].rows]
    named = [re.findall(r"D-\d\d", row.split(":")[0]) for row in rows]
    assert [name for names in named for name in names] == [
        *("D-01", "D-02", "D-04", "D-05", "D-06", "D-09", "D-11", "D-12", "D-13"),
        *(name for name in ("D-21", "D-22", "D-25", "D-26") for _ in range(2)),
    ]


def test_the_mended_words_are_the_released_ones_less_their_two_slips() -> None:
    released, mended = (
        read_names(vocabulary_path(name))
        for name in ("voc21_background", "voc21_background_mended")
    )
    assert released.count("bed") == 2 and mended.count("bed") == 1
    assert [name for name in mended if name not in released] == ["beach", "hill"]
    assert set(released) - set(mended) == {"beachhill"}
    apart = {"bed", "beach", "hill", "beachhill"}
    assert [n for n in released if n not in apart] == [n for n in mended if n not in apart]
    assert len(mended) == len(set(mended)) == len(released)


# --- the last step ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the first scenes of `shapes`."""
    return write_scenes(tmp_path_factory.mktemp("data"), range(4))


def test_the_last_step_is_the_released_code(data: Path, tmp_path: Path) -> None:
    """On benchmarks without [CLS] logits D-12 is the last; with them D-13, as on VOC20."""
    suite = planning.load("smoke")
    rows = {row.name: row for row in suite.tables[TABLE].rows if "text" in row.group}
    steps = {name: {c.column: c.run for c in row.cells if c.run} for name, row in rows.items()}
    existing = [name for name, runs in steps.items() if runs]
    assert existing[-1].startswith("D-12") and set(steps) - set(existing) == {
        "D-13 logits × [CLS] logits"
    }
    spec = config.load("table", TABLE)["groups"][0]
    overrides = [word for row in spec["rows"] for word in row["run"]]
    shared = ["model=shapes_clip", "image_size=336", "limit=4", "benchmark=shapes"]
    voc20_like = [*shared, "benchmark.cls_logits=true"]
    with_cls = {
        name: config.resolve([*voc20_like, *words])
        for name, words in {"steps": overrides, "released": ["method=cliptrase"]}.items()
    }
    as_released = changed(with_cls["released"].method, {"name": "cliptrase_paper"})
    assert with_cls["steps"].method == as_released and as_released.cls_logits is True
    released = {
        column: config.resolve([*shared, f"benchmark={column}", "method=cliptrase"])
        for column in steps[existing[-1]]
    }
    runs = {name: suite.runs[name] for row in existing for name in steps[row].values()}
    runs |= {run.name: run for run in (*released.values(), *with_cls.values())}
    folders = run_pass(
        runs, partial=tmp_path / "partial.npz", out=tmp_path, data=data, device="cpu", workers=2
    )

    def matrix(name: str) -> np.ndarray:
        return np.load(folders[name] / "confusion.npz")["confusion"]

    for column, run in released.items():
        ours = matrix(run.name)
        last = matrix(steps[existing[-1]][column])
        assert ours.sum() > 4e5 and np.array_equal(last, ours)
        first = matrix(steps[existing[0]][column])
        assert first.sum() == ours.sum() and not np.array_equal(first, ours)
    both = [matrix(with_cls[name].name) for name in ("steps", "released")]
    assert np.array_equal(*both)
    assert not np.array_equal(both[0], matrix(steps[existing[-1]]["shapes"]))
