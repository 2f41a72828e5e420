"""What never stands side by side: numbers of two protocols, settings or rules."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import yaml
from tests.unit.publish.reading import (
    DISCREPANCIES,
    lines_in,
    lines_of,
    names_of,
    pick,
    sheet_from,
)

from cliptrase import config
from cliptrase import plan as planning
from cliptrase.plan import Plan
from cliptrase.publish.cells import Line
from cliptrase.publish.charts import bars
from cliptrase.publish.frames import Frame, frames, titles
from cliptrase.publish.remarks import facts
from cliptrase.publish.render import to_csv, to_latex, to_markdown
from cliptrase.publish.row_charts import row_bars
from cliptrase.publish.tables import sheet_of


def mixed(lines: list[Line], change: Callable[[Line], dict[str, str]]) -> list[Line]:
    return [replace(line, **change(line)) for line in lines if line.kind in ("run", "avg")]


def test_two_rules_are_side_by_side_where_rows_name_them(
    paper: Plan, discrepancies: list[Line]
) -> None:
    sheet = sheet_of(paper, paper.tables[DISCREPANCIES], discrepancies)
    assert "rule cliptrase, mmseg" in sheet.facts
    assert pick(discrepancies, "D-26 rule mmseg", "pc59").rule == "mmseg"
    assert pick(discrepancies, "D-26 rule cliptrase (released)", "avg").rule == "cliptrase"
    assert list(frames(discrepancies)) == [Frame("crop", "cliptrase")]


SPLITS = {
    "protocol": lambda line: {"protocol": "slide"} if line.row in ("SCLIP", "GEM") else {},
    "rule": lambda line: {"rule": "mmseg"} if line.row in ("SCLIP", "GEM") else {},
}


@pytest.mark.parametrize("what", SPLITS)
def test_two_protocols_or_rules_never_share_a_column_or_a_group_of_bars(
    what: str, peers: list[Line]
) -> None:
    lines = mixed(peers, SPLITS[what])
    sheet = sheet_from(lines)
    assert len(sheet.panels) == 2 and all(panel.title for panel in sheet.panels)
    for panel in sheet.panels:
        assert len({getattr(line, what) for line in lines_in(panel)}) == 1
    assert sorted(line.row for panel in sheet.panels for line in lines_in(panel)) == sorted(
        line.row for line in lines
    )
    columns = len({line.column for line in lines})
    axes = bars("T", lines).axes[0]
    ticks = axes.get_xticks()
    assert len(ticks) == 2 * columns
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    groups: dict[int, set[str]] = {}
    for name, container in zip(names, axes.containers[1::2], strict=True):
        for bar in container:
            near = int(np.abs(ticks - bar.get_x() - bar.get_width() / 2).argmin())
            groups.setdefault(near, set()).add(name)
    own = {"SCLIP", "GEM"}
    assert len(groups) == 2 * columns
    assert all(found <= own or not found & own for found in groups.values())
    assert sum(found <= own for found in groups.values()) == columns
    panels = [ax for ax in row_bars("T", lines).axes if ax.get_visible()]
    assert len(panels) == 2 * columns
    counts = [len(ax.patches) for ax in panels]
    assert counts == [*[8 if name == "voc20" else 7 for name in names_of(lines)], *[2] * columns]


def test_a_row_that_names_its_rule_stands_beside_another(peers: list[Line]) -> None:
    lines = mixed(peers, SPLITS["rule"])
    said = [replace(x, row=f"{x.row}, rule mmseg") if x.rule == "mmseg" else x for x in lines]
    assert len(frames(said)) == 1 and len(sheet_from(said).panels) == 1
    only_one = [replace(x, row=f"{x.row}, rule mmseg") if x.row == "GEM" else x for x in lines]
    assert list(frames(only_one)) == [Frame("crop", "cliptrase"), Frame("crop", "mmseg")]
    assert {line.row for line in frames(only_one)[Frame("crop", "mmseg")]} == {"SCLIP"}


def test_an_empty_cell_stands_with_the_others_of_its_row(discrepancies: list[Line]) -> None:
    lines = [replace(x, protocol="slide") if x.row.startswith("D-21") else x for x in discrepancies]
    found = frames(lines)
    assert titles(list(found)) == ["protocol crop", "protocol slide"]
    assert len(found[Frame("slide", "cliptrase")]) == 20
    bare = [x for x in discrepancies if x.row.startswith("D-21") and x.kind == "absent"]
    assert list(frames(bare)) == [Frame("crop", "cliptrase")]
    assert [panel.title for panel in sheet_from(bare).panels] == [""]


# --- settings of a protocol ------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(
    make: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Plan, list[Line]]]:
    """A table of sliding windows whose rows CLIP and SCLIP are there at two short sides, GEM at
    both the short side and the scale of others, with every run made."""
    folder = tmp_path_factory.mktemp("settings")
    conf = folder / "conf"
    shutil.copytree(config.files.CONF, conf)
    rows = {
        "CLIP": ["method=clip"],
        "SCLIP": ["method=sclip"],
        "CLIP at 448": ["method=clip", "protocol.short_side=448"],
        "SCLIP at 448": ["method=sclip", "protocol.short_side=448"],
        "GEM": ["method=gem", "protocol.short_side=448", "protocol.logit_scale=65"],
        "SCLIP at 336": ["method=sclip", "protocol.short_side=336", "protocol.logit_scale=40.0"],
    }
    table = yaml.safe_load((conf / "table" / "table_peers_slide.yaml").read_text())
    own = [{"row": name, "run": run} for name, run in rows.items()]
    table |= {"groups": [{"name": "g", "rows": own}], "role": "main"}
    (conf / "table" / "settings.yaml").write_text(yaml.safe_dump(table))
    suite = yaml.safe_load((conf / "suite" / "paper.yaml").read_text())
    suite |= {"roles": {"main": ["voc20", "pc59"]}, "tables": ["settings"]}
    (conf / "suite" / "settings.yaml").write_text(yaml.safe_dump(suite))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config.files, "CONF", conf)
        plan = planning.load("settings")
        make(plan, folder)
        yield plan, lines_of(plan, folder, "settings")


LARGE, SHARP = "slide(short_side=448)", "slide(short_side=448,logit_scale=65)"


def test_runs_under_two_settings_share_no_column(settings: tuple[Plan, list[Line]]) -> None:
    plan, lines = settings
    sheet = sheet_of(plan, plan.tables["settings"], lines)
    held = {
        panel.title: list(dict.fromkeys(line.row for line in lines_in(panel)))
        for panel in sheet.panels
    }
    assert held == {
        "protocol slide": ["CLIP", "SCLIP", "SCLIP at 336"],  # what slide.yaml says, said again
        "protocol slide, short_side 448": ["CLIP at 448", "SCLIP at 448"],
        "protocol slide, short_side 448, logit_scale 65": ["GEM"],
    }
    best = [
        [entry.line.row for s in panel.sections for row in s.rows for entry in row.entries
         if entry and entry.best and entry.line.column == "pc59"]
        for panel in sheet.panels
    ]  # fmt: skip
    assert [len(found) for found in best] == [2, 1, 0]  # SCLIP twice: one run, two rows
    assert "**protocol slide, short_side 448**" in to_markdown(sheet)
    assert "{protocol slide, short\\_side 448}" in to_latex(sheet).replace("\\footnotesize ", "")


def test_the_csv_says_which_settings(settings: tuple[Plan, list[Line]]) -> None:
    _, lines = settings
    found: dict[str, set[str]] = {}
    for row in csv.DictReader(io.StringIO(to_csv(lines))):
        found.setdefault(row["row"], set()).add(row["protocol"])
    assert found == {
        "CLIP": {"slide"},
        "SCLIP": {"slide"},
        "SCLIP at 336": {"slide"},
        "CLIP at 448": {LARGE},
        "SCLIP at 448": {LARGE},
        "GEM": {SHARP},
    }


def test_no_difference_and_no_mark_reaches_other_settings(
    settings: tuple[Plan, list[Line]],
) -> None:
    _, lines = settings
    versus = {line.row: line.versus for line in lines}
    assert versus == {"CLIP": "", "SCLIP": "CLIP", "SCLIP at 336": "CLIP", "CLIP at 448": "",
                      "SCLIP at 448": "", "GEM": ""}  # fmt: skip
    assert {line.row for line in lines if line.diff is not None} == {"SCLIP", "SCLIP at 336"}
    assert not any(line.near_best for line in lines if line.row == "GEM")  # alone


def test_bars_of_two_settings_are_apart(settings: tuple[Plan, list[Line]]) -> None:
    _, lines = settings
    panels = [ax for ax in row_bars("T", lines).axes if ax.get_visible()]
    heads = [ax.get_title().rpartition("\n")[0] for ax in panels]
    assert heads == [
        *["protocol slide"] * 3,
        *["protocol slide, short_side 448"] * 3,
        *["protocol slide, short_side 448, logit_scale 65"] * 3,
    ]
    assert [len(ax.patches) for ax in panels] == [3] * 3 + [2] * 3 + [1] * 3


def test_the_head_says_what_the_windows_are(settings: tuple[Plan, list[Line]]) -> None:
    _, lines = settings
    usual = [line for line in lines if line.protocol == "slide"]
    assert "windows of 224 px, short side 336, stride 112" in facts("s", usual)
    city = [replace(x, short_side=560) if x.benchmark == "pc59" else x for x in usual]
    assert "windows of 224 px, short side 336 (560 on pc59), stride 112" in facts("s", city)
    assert "windows of 224 px, short side 336 and 448, stride 112" in facts("s", lines)


def test_a_crop_s_head_says_its_size(peers: list[Line]) -> None:
    assert "336 px" in facts("s", peers)


def test_an_average_over_two_settings_is_in_neither_column() -> None:
    lines = [
        Line("t", "r", "cityscapes19", "mIoU", 224, protocol="slide", rule="mmseg", column="c"),
        Line("t", "r", "voc20", "mIoU", 224, protocol="slide(short_side=560)", rule="mmseg"),
        Line("t", "r", "avg", "mIoU", 224, protocol="slide slide(short_side=560)", rule="mmseg"),
    ]
    assert titles(list(frames(lines))) == [
        "protocol slide",
        "protocol slide, short_side 560",
        "protocol slide and slide, short_side 560",
    ]


# --- the words of a row ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("GEM, rule detectron2", False),
        ("rule detectron2: GEM", False),
        ("GEM, rule detectron2_v06", True),
        ("GEM, overrule detectron2", True),
    ],
)
def test_a_row_names_its_rule_in_whole_words(peers: list[Line], name: str, apart: bool) -> None:
    lines = mixed(peers, lambda x: {"rule": "detectron2", "row": name} if x.row == "GEM" else {})
    assert (len(frames(lines)) == 2) == apart
