"""What a table's YAML may ask of its rows: where they stand, what they are compared with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from cliptrase import config, plan
from cliptrase.errors import UserError
from cliptrase.plan import Table
from cliptrase.plan.tables import Cell

COLUMNS = ["voc21", "voc20", "pc59"]
CLIP, SCLIP, OURS = (
    {"row": name, "run": [f"method={name}"]} for name in ("clip", "sclip", "cliptrase")
)
ONLY = {"otherwise": "not here"}


@pytest.fixture
def expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Table]:
    """expand(rows, key=value, …): a table of one group of these rows over some benchmarks."""
    conf = tmp_path / "conf"
    shutil.copytree(config.files.CONF, conf)
    monkeypatch.setattr(config.files, "CONF", conf)

    def expanded(
        rows: list[dict[str, Any]], columns: Sequence[str] = COLUMNS, **keys: Any
    ) -> Table:
        table = {
            "title": "T",
            "kind": "metrics",
            "role": "main",
            "metrics": ["mIoU"],
            "image_size": 224,
            "average": True,
            "groups": [{"name": "g", "rows": rows}],
        }
        (conf / "table" / "t.yaml").write_text(yaml.safe_dump(table | keys))
        suite = yaml.safe_load((conf / "suite" / "paper.yaml").read_text())
        suite |= {"roles": {"main": list(columns)}, "tables": ["t"]}
        (conf / "suite" / "s.yaml").write_text(yaml.safe_dump(suite))
        return plan.load("s").tables["t"]

    return expanded


def cells(table: Table, row: str) -> dict[str, Cell]:
    (found,) = [one for one in table.rows if one.name == row]
    return {cell.column: cell for cell in found.cells}


def versus(table: Table) -> dict[str, list[str]]:
    return {row.name: [cell.versus for cell in row.cells] for row in table.rows}


def test_all_rows_are_compared_with_one_of_them_also_those_above_it(expand):
    table = expand([CLIP, SCLIP, OURS], versus="sclip")
    assert versus(table) == {"clip": ["sclip"] * 4, "sclip": [""] * 4, "cliptrase": ["sclip"] * 4}
    assert versus(expand([CLIP, SCLIP, OURS], versus="above")) == versus(
        expand([CLIP, SCLIP, OURS])
    )
    with pytest.raises(UserError, match=r"table t, group 'g': no row 'CLIP' that is run.*clip"):
        expand([CLIP, SCLIP], versus="CLIP")


def test_a_row_may_stand_in_some_columns_only(expand):
    table = expand([CLIP, OURS | ONLY | {"only": ["voc20", "ade150"]}])
    found = cells(table, "cliptrase")
    assert list(found) == [*COLUMNS, "avg"]  # ade150 is no benchmark of this suite
    assert [found[name].kind for name in found] == ["absent", "run", "absent", "absent"]
    assert found["voc20"].run.startswith("voc20.cliptrase.")
    assert {found[name].reason for name in ("voc21", "pc59")} == {"not here"}
    assert found["avg"].reason == "no average: this row is not on every benchmark"
    assert not any(found[name].run or found[name].runs for name in ("voc21", "pc59", "avg"))


def test_a_cell_is_compared_with_the_nearest_row_above_that_has_one(expand):
    half = SCLIP | ONLY | {"only": ["voc20"]}
    assert versus(expand([CLIP, half, OURS]))["cliptrase"] == ["clip", "sclip", "clip", "clip"]
    assert versus(expand([half, CLIP, OURS])) == {
        "sclip": [""] * 4,
        "clip": ["", "sclip", "", ""],
        "cliptrase": ["clip"] * 4,
    }
    # one row to compare with: where it has no number there is no other
    assert versus(expand([CLIP, half, OURS], versus="sclip"))["cliptrase"] == ["", "sclip", "", ""]


def test_a_column_may_hold_another_benchmark_and_is_compared_within_the_column(expand):
    usual = {"row": "usual", "run": OURS["run"], "only": {"voc21": "voc21_standard"}} | ONLY
    table = expand([usual, OURS | ONLY | {"only": ["voc21"]}])
    cell = cells(table, "usual")["voc21"]
    assert (cell.benchmark, cell.column, cell.kind) == ("voc21_standard", "voc21", "run")
    assert cell.run.startswith("voc21_standard.cliptrase.")
    assert cells(table, "cliptrase")["voc21"].versus == "usual"
    suite = plan.load("s")
    assert {run.benchmark.name for run in suite.runs.values()} == {"voc21", "voc21_standard"}
    assert list(suite.passes) == ["voc2012.vit_b16.224.crop"]  # the same images, one pass


def test_a_row_on_every_benchmark_has_its_average(expand):
    everywhere = OURS | ONLY | {"only": {name: name for name in COLUMNS}}
    assert cells(expand([CLIP, everywhere]), "cliptrase")["avg"].kind == "avg"


def test_operations_are_compared_in_one_column(expand):
    groups = [{"name": "g", "flops": True, "rows": [CLIP, OURS | ONLY | {"only": ["pc59"]}]}]
    found = cells(expand([], groups=groups), "cliptrase")[""]
    assert [name.partition(".")[0] for name in found.runs] == ["pc59", "pc59"]


def test_words_and_the_rule_are_a_row_s_own(expand):
    words = ["benchmark.background=pc60_background", "vocabulary=coco_object80"]
    changed = {"row": "changed", "run": [*OURS["run"], "protocol.rule=mmseg", *words]}
    expand([OURS, changed | ONLY | {"only": ["voc21"]}])
    (run,) = [r for r in plan.load("s").runs.values() if r.protocol.rule == "mmseg"]
    assert run.vocabulary.background.name == "pc60_background"
    assert run.vocabulary.classes.name == "coco_object80"


def test_a_table_may_be_of_another_protocol_than_its_suite(expand):
    assert expand([CLIP]).rows[0].cells[0].protocol == "crop"
    with pytest.raises(UserError, match=r"table t: unknown protocol 'other'; .*crop"):
        expand([CLIP], protocol="other")
    assert expand([CLIP], protocol="slide").rows[0].cells[0].protocol == "slide"
    assert {run.protocol.name for run in plan.load("s").runs.values()} == {"slide"}


def test_other_pictures_are_another_pass(expand):
    """The short side is a row's own under sliding windows; the rule and the scale share images."""
    larger = {"row": "larger", "run": ["method=clip", "protocol.short_side=448"]}
    sharper = {"row": "sharper", "run": ["method=clip", "protocol.logit_scale=65"]}
    rows = [row | ONLY | {"only": ["voc20"]} for row in (CLIP, larger, sharper)]
    expand(rows, protocol="slide")
    passes = plan.load("s").passes
    assert {name: len(one.runs) for name, one in passes.items()} == {
        "voc2012.vit_b16.224.slide": 2,
        "voc2012.vit_b16.224.slide.short_side-448": 1,
    }
    assert {one.protocol for one in passes.values()} == {"slide"}


def test_a_row_is_compared_under_its_own_settings_only(expand):
    """voc20 twice as large, then a row as before: the nearest above of the same settings."""
    rows = [
        CLIP,
        {"row": "larger", "run": ["method=clip", "protocol.short_side=448"]},
        {"row": "larger sclip", "run": ["method=sclip", "protocol.short_side=448"]},
        SCLIP,
    ]
    assert versus(expand(rows, protocol="slide")) == {
        "clip": [""] * 4,
        "larger": [""] * 4,
        "larger sclip": ["larger"] * 4,
        "sclip": ["clip"] * 4,
    }
    all_with_one = expand(rows, protocol="slide", versus="clip")
    assert versus(all_with_one)["larger sclip"] == [""] * 4
    assert {cell.protocol for cell in cells(all_with_one, "larger").values()} == {
        "slide(short_side=448)"
    }


def test_other_settings_than_the_benchmark_s_are_what_a_cell_says(expand):
    """560 is the short side of Cityscapes: said there it changes nothing, elsewhere it does."""
    larger = {"row": "larger", "run": ["method=clip", "protocol.short_side=560"]}
    table = expand([CLIP, larger], columns=["cityscapes19", "voc20"], protocol="slide")
    usual, other = cells(table, "clip"), cells(table, "larger")
    assert {cell.protocol for cell in usual.values()} == {"slide"}
    assert [other[name].protocol for name in ("cityscapes19", "voc20")] == [
        "slide",
        "slide(short_side=560)",
    ]
    assert other["avg"].protocol == "slide slide(short_side=560)"
    assert [other[name].versus for name in other] == ["clip", "", ""]
    assert other["cityscapes19"].run == usual["cityscapes19"].run
    assert sorted(plan.load("s").passes) == [
        "cityscapes.vit_b16.224.slide",
        "voc2012.vit_b16.224.slide",
        "voc2012.vit_b16.224.slide.short_side-560",
    ]


def test_every_key_of_a_protocol_is_a_setting_but_its_rule(expand):
    keys = {"logit_scale": 65, "background_threshold": 0.2, "short_side": 448, "rule": "cliptrase"}
    rows = [{"row": k, "run": ["method=clip", f"protocol.{k}={v}"]} for k, v in keys.items()]
    table = expand(rows, protocol="slide")
    assert {row.name: row.cells[0].protocol for row in table.rows} == {
        "logit_scale": "slide(logit_scale=65)",
        "background_threshold": "slide(background_threshold=0.2)",
        "short_side": "slide(short_side=448)",
        "rule": "slide",
    }
    (row,) = expand([{"row": "r", "run": ["protocol.logit_scale=50"]}]).rows
    assert row.cells[0].protocol == "crop(logit_scale=50)"


def test_operations_are_those_of_the_same_settings(expand):
    rows = [
        CLIP,
        {"row": "larger", "run": ["method=clip", "protocol.short_side=448"]},
        SCLIP,
    ]
    groups = [{"name": "g", "flops": True, "rows": rows}]
    table = expand([], groups=groups, protocol="slide")
    assert [row.name for row in table.rows if "" in cells(table, row.name)] == ["clip", "sclip"]


def test_an_empty_cell_has_the_settings_that_its_row_would_have(expand):
    """The protocol and the rule of the row, the words of the column's benchmark; no run is made."""
    words = ["benchmark.background=voc21_background_mended", "protocol.rule=mmseg"]
    row = {"row": "r", "run": [*OURS["run"], *words], "only": ["voc21"]} | ONLY
    found = cells(expand([row]), "r")
    (run,) = found["voc20"].settings
    assert run.protocol.rule == "mmseg" and run.vocabulary.background is None
    assert run.vocabulary.classes.name == "voc20"
    assert [one.benchmark.name for one in found["avg"].settings] == COLUMNS
    assert [run.benchmark.name for run in plan.load("s").runs.values()] == ["voc21"]


def test_a_row_may_have_a_footnote(expand):
    table = expand([CLIP | {"note": "as released"}, SCLIP])
    assert [row.note for row in table.rows] == ["as released", ""]
    for wrong in ("", {"a": "b"}, ["a"]):
        with pytest.raises(UserError, match=r"table t, row 'clip': note=.*; give text, the footn"):
            expand([CLIP | {"note": wrong}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"only": ["voc20"]}, "row 'clip': `only` needs `otherwise`; give the reason, as text"),
        (ONLY, "row 'clip': `otherwise` needs `only`; give a list of benchmarks, or a mapping"),
        ({"only": [], **ONLY}, r"row 'clip': only=\[\]; give a list of benchmarks"),
        ({"only": "voc20", **ONLY}, "row 'clip': only='voc20'; give a list of benchmarks"),
        ({"only": {"voc21": 3}, **ONLY}, "row 'clip', only: unknown benchmark '3'"),
        ({"only": ["voc2"], **ONLY}, "row 'clip', only: unknown benchmark 'voc2'.*voc20"),
        ({"only": {"voc21": "voc21s"}, **ONLY}, "row 'clip', only: unknown benchmark 'voc21s'"),
        ({"only": ["voc20", "voc20"], **ONLY}, "row 'clip', only: 'voc20' is listed twice"),
        ({"only": ["voc20"], "otherwise": ""}, "row 'clip': otherwise=''; give the reason"),
    ],
)
def test_where_a_row_stands_is_validated(expand, change, message):
    with pytest.raises(UserError, match=f"table t, {message}"):
        expand([CLIP | change])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"compare_to_best": 1}, "compare_to_best=1; give true or false"),
        ({"figure": "y"}, "figure='y'; give true or false"),
        ({"versus": [True]}, r"versus=\[True\]; give `above` or the name of a row of every group"),
        ({"protocol": 224}, "unknown protocol '224'"),
    ],
)
def test_keys_of_a_table_are_validated(expand, keys, message):
    with pytest.raises(UserError, match=f"table t: {message}"):
        expand([CLIP], **keys)


def test_a_column_may_have_overrides_of_its_own(expand):
    other = {"per_benchmark": {"voc20": ["method.attention.early_share=0.6"]}}
    table = expand([{"row": "resclip", "run": ["method=resclip"]} | other])
    shares = {
        column: cell.settings[0].method.attention.early_share
        for column, cell in cells(table, "resclip").items()
        if cell.kind == "run"
    }
    assert shares == {"voc21": 0.5, "voc20": 0.6, "pc59": 0.5}


@pytest.mark.parametrize(
    ("per_benchmark", "message"),
    [
        ({"voc2": ["method=clip"]}, "row 'clip', per_benchmark: unknown benchmark 'voc2'"),
        ({"voc20": ["image_size=448"]}, "per_benchmark, voc20: `run` must not set image_size="),
        ({"voc20": "method=clip"}, "row 'clip': per_benchmark="),
    ],
)
def test_overrides_of_a_column_are_validated(expand, per_benchmark, message):
    with pytest.raises(UserError, match=message):
        expand([CLIP | {"per_benchmark": per_benchmark}])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("benchmark.cls_logits=true", "of the benchmark it may set benchmark.background="),
        ("benchmark.name=voc20", "of the benchmark it may set benchmark.background="),
        ("model.path=elsewhere", "of the model it may set model.precision="),
        ("protocol=crop", "a table has one, its own `protocol` or the suite's"),
        ("protocol.name=crop", "a table has one, its own `protocol` or the suite's"),
        (
            "protocol.vocabularies=null",
            "of the protocol it may set protocol.rule= ",
        ),
    ],
)
def test_what_else_a_row_may_not_set_is_said(expand, override, message):
    with pytest.raises(UserError) as caught:
        expand([CLIP | {"run": ["method=clip", override]}])
    where = f"table t, row 'clip': `run` must not set {override.partition('=')[0]}=; "
    assert str(caught.value).startswith(where + message)


def test_a_group_s_overrides_come_before_those_of_its_rows(expand):
    rows = [{"row": "as it is", "run": []}, {"row": "other", "run": ["method=sclip"]}]
    groups = [{"name": "g", "run": ["method=clip"], "rows": rows}]
    table = expand([], groups=groups)
    methods = [
        cells(table, name)["voc20"].settings[0].method.name for name in ("as it is", "other")
    ]
    assert methods == ["clip", "sclip"]
    groups[0]["run"] = ["image_size=336"]
    with pytest.raises(UserError, match="group 'g': `run` must not set image_size="):
        expand([], groups=groups)


def test_a_summary_is_of_all_rows_that_stand_in_a_column(expand):
    """Pixels are lost in runs with distractors alone: no other row has a cell, no summary one."""
    rows = [CLIP, SCLIP | {"only": ["voc20"]} | ONLY]
    rows.append({"row": "50", "run": ["method=clip", "distractors=50"]})
    keys = {"metrics": ["mIoU", "lost"], "average": False, "versus": "clip"}
    table = expand([], groups=[{"name": "g", "summary": True, "rows": rows}], **keys)
    assert [row.name for row in table.rows] == ["clip", "sclip", "50", "mean", "worst", "range"]
    runs = {
        row.name: {c.column: c.run for c in row.cells if c.metric == "mIoU"} for row in table.rows
    }
    for row in table.rows[3:]:
        assert [(cell.kind, cell.metric) for cell in row.cells] == [(row.name, "mIoU")] * 3
        for cell in row.cells:
            above = [runs[name][cell.column] for name in ("clip", "sclip", "50")]
            assert cell.runs == tuple(filter(None, above)) and not cell.run and not cell.versus
    lost = {row.name: sum(cell.metric == "lost" for cell in row.cells) for row in table.rows}
    assert lost == {"clip": 0, "sclip": 0, "50": 3, "mean": 0, "worst": 0, "range": 0}
    rows.append({"row": "mean", "run": []})
    with pytest.raises(UserError, match="group 'g': 'mean' is listed twice"):
        expand([], groups=[{"name": "g", "summary": True, "rows": rows}])
