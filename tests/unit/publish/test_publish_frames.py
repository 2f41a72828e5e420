"""What never stands side by side: numbers of two protocols, settings or rules."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from matplotlib.axes import Axes
from tests.unit.publish.reading import (
    DISCREPANCIES,
    PEERS,
    lines_in,
    lines_of,
    marked_best,
    names_of,
    pick,
)

from cliptrase import config
from cliptrase import plan as planning
from cliptrase.plan import Plan
from cliptrase.publish.figures.charts import bars, row_bars
from cliptrase.publish.tables.captions import facts
from cliptrase.publish.tables.cells import Line, to_frame
from cliptrase.publish.tables.comparable import comparables
from cliptrase.publish.tables.layout import sheet_of
from cliptrase.publish.tables.render import to_csv, to_latex, to_markdown


def keys(lines: list[Line]) -> list[tuple[str, str]]:
    """Protocol and rule of each block of lines that may stand side by side."""
    return [(each.protocol, each.rule) for each in comparables(to_frame(lines))]


def titles(lines: list[Line]) -> list[str]:
    return [each.title for each in comparables(to_frame(lines))]


def mixed(lines: list[Line], change: Callable[[Line], dict[str, str]]) -> list[Line]:
    return [replace(line, **change(line)) for line in lines if line.kind in ("run", "avg")]


def test_two_rules_are_side_by_side_where_rows_name_them(
    paper: Plan, discrepancies: list[Line]
) -> None:
    sheet = sheet_of(paper, paper.tables[DISCREPANCIES], to_frame(discrepancies))
    assert "rule cliptrase, mmseg" in sheet.facts
    assert pick(discrepancies, "D-26 rule mmseg", "pc59").rule == "mmseg"
    assert pick(discrepancies, "D-26 rule cliptrase (released)", "avg").rule == "cliptrase"
    assert keys(discrepancies) == [("crop", "cliptrase")]


SPLITS = {
    "protocol": lambda line: {"protocol": "slide"} if line.row in ("SCLIP", "GEM") else {},
    "rule": lambda line: {"rule": "mmseg"} if line.row in ("SCLIP", "GEM") else {},
}


@pytest.mark.parametrize("what", SPLITS)
def test_two_protocols_or_rules_never_share_a_column_or_a_group_of_bars(
    paper: Plan, what: str, peers: list[Line]
) -> None:
    lines = mixed(peers, SPLITS[what])
    sheet = sheet_of(paper, paper.tables[PEERS], to_frame(lines))
    assert len(sheet.panels) == 2 and all(panel.title for panel in sheet.panels)
    for panel in sheet.panels:
        assert len({getattr(line, what) for line in lines_in(panel.cells)}) == 1
    assert sorted(line.row for panel in sheet.panels for line in lines_in(panel.cells)) == sorted(
        line.row for line in lines
    )
    columns = len({line.column for line in lines})
    few = [line for line in lines if line.row in ("CLIP", "SCLIP", "GEM", "CLIPtrase")]
    axes = bars("T", to_frame(few)).axes
    ticks = [(plot, tick) for plot in axes for tick in plot.get_xticks()]
    assert len(ticks) == 2 * columns
    legend = axes[0].get_legend()
    faces = [patch.get_facecolor() for patch in legend.get_patches()]
    names = [text.get_text() for text in legend.get_texts()]
    groups: dict[tuple[Axes, float], set[str]] = {}
    for plot, bar in ((each, bar) for each in axes for bar in each.patches):
        middle = bar.get_x() + bar.get_width() / 2
        near = min((tick for on, tick in ticks if on is plot), key=lambda tick: abs(tick - middle))
        groups.setdefault((plot, near), set()).add(names[faces.index(bar.get_facecolor())])
    own = {"SCLIP", "GEM"}
    assert len(groups) == 2 * columns
    assert all(found <= own or not found & own for found in groups.values())
    assert sum(found <= own for found in groups.values()) == columns
    panels = [ax for ax in row_bars("T", to_frame(lines)).axes if ax.get_visible()]
    assert len(panels) == 2 * columns
    counts = [len(ax.patches) for ax in panels]
    assert counts == [*[17 if name == "voc20" else 16 for name in names_of(lines)], *[2] * columns]


def test_a_row_that_chooses_its_rule_stands_beside_another(paper: Plan, peers: list[Line]) -> None:
    lines = mixed(peers, SPLITS["rule"])
    both = [replace(x, chooses_rule=x.rule == "mmseg") for x in lines]
    assert keys(both) == [("crop", "cliptrase")]
    assert len(sheet_of(paper, paper.tables[PEERS], to_frame(both)).panels) == 1
    one = [replace(x, chooses_rule=x.row == "GEM") for x in lines]
    assert keys(one) == [("crop", "cliptrase"), ("crop", "mmseg")]
    _, apart = comparables(to_frame(one))
    assert set(apart.lines["row"]) == {"SCLIP"}
    first = [replace(x, rule="mmseg", chooses_rule=True) if x.row == "CLIP" else x for x in peers]
    assert keys(first) == [("crop", "cliptrase")], "the first row does not choose for the others"


def test_whether_a_row_chooses_its_rule_is_in_its_overrides_and_not_in_its_name(
    make: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(config.files.CONF, conf)
    monkeypatch.setattr(config.files, "CONF", conf)
    table = conf / "table" / f"{DISCREPANCIES}.yaml"
    text = table.read_text()
    assert text.count("D-26 rule mmseg") == 1
    table.write_text(text.replace("D-26 rule mmseg", "D-26 classes that are there"))
    plan = planning.load("paper")
    rows = plan.tables[DISCREPANCIES].rows
    assert [row.name for row in rows if row.chooses_rule] == ["D-26 classes that are there"]
    make(plan, tmp_path, {c.run for row in rows if "D-26" in row.group for c in row.cells if c.run})
    lines = lines_of(plan, tmp_path, DISCREPANCIES)
    (panel,) = sheet_of(plan, plan.tables[DISCREPANCIES], to_frame(lines)).panels
    assert pick(lines, "D-26 classes that are there", "pc59").rule == "mmseg"
    assert panel.title == "" and "D-26 classes that are there" in set(panel.cells["row"])


def test_an_empty_cell_stands_with_the_others_of_its_row(
    paper: Plan, discrepancies: list[Line]
) -> None:
    lines = [replace(x, protocol="slide") if x.row.startswith("D-21") else x for x in discrepancies]
    assert titles(lines) == ["protocol crop", "protocol slide"]
    _, slide = comparables(to_frame(lines))
    assert (slide.protocol, slide.rule, len(slide.lines)) == ("slide", "cliptrase", 20)
    bare = [x for x in discrepancies if x.row.startswith("D-21") and x.kind == "absent"]
    assert keys(bare) == [("crop", "cliptrase")]
    sheet = sheet_of(paper, paper.tables[DISCREPANCIES], to_frame(bare))
    assert [panel.title for panel in sheet.panels] == [""]


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
    sheet = sheet_of(plan, plan.tables["settings"], to_frame(lines))
    held = {
        panel.title: list(dict.fromkeys(line.row for line in lines_in(panel.cells)))
        for panel in sheet.panels
    }
    assert held == {
        "protocol slide": ["CLIP", "SCLIP", "SCLIP at 336"],  # what slide.yaml says, said again
        "protocol slide, short_side 448": ["CLIP at 448", "SCLIP at 448"],
        "protocol slide, short_side 448, logit_scale 65": ["GEM"],
    }
    best = [marked_best(panel, "pc59") for panel in sheet.panels]
    assert [len(found) for found in best] == [2, 1, 0]  # SCLIP twice: one run, two rows
    assert "**protocol slide, short_side 448**" in to_markdown(sheet)
    assert "{protocol slide, short\\_side 448}" in to_latex(sheet).replace("\\footnotesize ", "")


def test_the_csv_says_which_settings(settings: tuple[Plan, list[Line]]) -> None:
    _, lines = settings
    found: dict[str, set[str]] = {}
    for row in csv.DictReader(io.StringIO(to_csv(to_frame(lines)))):
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
    panels = [ax for ax in row_bars("T", to_frame(lines)).axes if ax.get_visible()]
    heads = [" ".join(ax.get_title().split("\n")[:-1]) for ax in panels]
    assert heads == [
        *["protocol slide"] * 3,
        *["protocol slide, short_side 448"] * 3,
        *["protocol slide, short_side 448, logit_scale 65"] * 3,
    ]
    assert [len(ax.patches) for ax in panels] == [3] * 3 + [2] * 3 + [1] * 3


def test_the_head_says_what_the_windows_are(settings: tuple[Plan, list[Line]]) -> None:
    _, lines = settings
    usual = [line for line in lines if line.protocol == "slide"]
    assert "windows of 224 px, short side 336, stride 112" in facts("s", to_frame(usual))
    city = [replace(x, short_side=560) if x.benchmark == "pc59" else x for x in usual]
    assert "windows of 224 px, short side 336 (560 on pc59), stride 112" in facts(
        "s", to_frame(city)
    )
    assert "windows of 224 px, short side 336 and 448, stride 112" in facts("s", to_frame(lines))


def test_a_crop_s_head_says_its_size(peers: list[Line]) -> None:
    assert "336 px" in facts("s", to_frame(peers))


def test_an_average_over_two_settings_is_in_neither_column() -> None:
    lines = [
        Line("t", "r", "cityscapes19", "mIoU", 224, protocol="slide", rule="mmseg", column="c"),
        Line("t", "r", "voc20", "mIoU", 224, protocol="slide(short_side=560)", rule="mmseg"),
        Line("t", "r", "avg", "mIoU", 224, protocol="slide slide(short_side=560)", rule="mmseg"),
    ]
    assert titles(lines) == [
        "protocol slide",
        "protocol slide, short_side 560",
        "protocol slide and slide, short_side 560",
    ]
