"""Suites expand to the runs that the paper's tables need, and runs share passes."""

import functools
import re
import shutil
from pathlib import Path

import pytest
import yaml

from cliptrase import config, plan
from cliptrase.errors import UserError
from cliptrase.plan.files import Suite
from cliptrase.plan.tables import published

OURS = (
    "table_discrepancies",
    "table_errors",
    "table_peers",
    "table_peers_slide",
    "table_peers_own",  # peers.csv
    "table8_without_names",
    "table_vocabularies",
)  # nobody printed these


@pytest.fixture(scope="module")
def paper():
    return plan.load("paper")


def test_the_whole_paper_is_fourteen_passes_and_four_of_sliding_windows(paper):
    crop = {
        f"{dataset}.vit_b16.{size}.crop"
        for dataset in ("coco", "voc2012", "pcontext", "ade2016", "ade2021")
        for size in (224, 336)
    }
    crop |= {"coco.vit_b16.320.crop"}
    crop |= {f"cityscapes.vit_b16.{size}.crop" for size in (224, 320, 336)}
    slide = {
        f"{dataset}.vit_b16.224.slide" for dataset in ("coco", "voc2012", "pcontext", "ade2016")
    }
    assert sorted(paper.passes) == sorted(crop | slide)


def test_coinciding_rows_are_one_run(paper):
    rows = {row.name: row for row in paper.tables["table2_ablation"].rows}
    for name in ("cosine", "prototypes", "224", "layer 12", "layer 12, direct"):
        assert [c.run for c in rows[name].cells if c.kind == "run"] == [
            c.run for c in rows["+D"].cells if c.kind == "run"
        ]
    assert [c.run for c in rows["336"].cells] != [c.run for c in rows["+D"].cells][:-1]


def test_the_ablation_counts_its_runs(paper):
    voc20 = [name for name in paper.runs if re.match(r"voc20\..*\.224\.(?!slide)", name)]
    # CLIP, +SCR, +PC, +D, inner product, features, layers 9-11 in both readings: 12; SCLIP;
    # four more of table 4's seven rows, and five as the text writes it; table 5's six networks and
    # features; 63 more cells
    assert len(voc20) == 12 + 1 + 4 + 5 + 6 + 63


def test_rows_of_table_4_that_table_2_has_are_one_run_with_them(paper):
    two, four = (
        {row.name: [cell.run for cell in row.cells if cell.kind == "run"] for row in table.rows}
        for table in (paper.tables["table2_ablation"], paper.tables["table4_scr"])
    )
    assert four["cosine"] == two["+SCR"]
    assert four["CLIPtrase, inner product SCR"] == two["inner product"]
    assert four["CLIPtrase, cosine SCR"] == two["+D"]
    assert len({str(runs) for runs in four.values()}) == len(four) == 12


def test_versus_is_the_row_above_within_its_group(paper):
    versus = {row.name: row.versus for row in paper.tables["table2_ablation"].rows}
    assert versus["+SCR"] == "CLIP"
    assert versus["+D"] == "+PC"
    assert versus["inner product"] == ""
    assert versus["336"] == "224"
    main = {row.name: (row.kind, row.versus) for row in paper.tables["table1_main"].rows}
    assert main["CLIP-Surgery"] == ("quoted", "")
    assert main["SCLIP"] == ("run", "CLIP")  # a quoted row was not run: it is nobody's versus


def test_the_grid_has_64_cells_a_best_and_its_chosen_point(paper):
    grid = paper.tables["fig7_sensitivity"]
    assert grid.chosen == "eps=0.7 min_samples=3"
    assert [row.kind for row in grid.rows].count("run") == 64
    best = grid.rows[-1]
    assert best.name == "best" and len(set(best.cells[0].runs)) == 64
    assert {row.versus for row in grid.rows} == {"", grid.chosen}


def test_averages_cover_the_roles_benchmarks(paper):
    for row in paper.tables["table7_metrics_336"].rows:
        averages = [cell for cell in row.cells if cell.kind == "avg"]
        assert [cell.metric for cell in averages] == ["pAcc", "mAcc", "fwIoU", "mIoU"]
        assert {len(cell.runs) for cell in averages} == {9}


def test_flops_are_relative_to_clip(paper):
    rows = {row.name: row for row in paper.tables["table2_ablation"].rows}
    cell = next(cell for cell in rows["+PC"].cells if cell.kind == "flops")
    assert cell.benchmark == ""
    assert ".denoise-none." in cell.runs[0] and ".clip." in cell.runs[1]


def test_every_run_of_table_rows_that_the_paper_prints_has_its_published_line(paper):
    printed = {(p["table"], p["row"], p["benchmark"], p["metric"]) for p in published()}
    unprinted = {
        (cell.table, cell.row)
        for table in paper.tables.values()
        for row in table.rows
        for cell in row.cells
        if (cell.table, cell.row, cell.benchmark, cell.metric) not in printed
        and table.name not in OURS
    }
    assert not any(line["table"] in OURS for line in published())
    assert {row for table, row in unprinted if table != "fig7_sensitivity"} == {
        "layer 9, direct",
        "layer 10, direct",
        "layer 11, direct",
        "layer 12, direct",
        "224 px",
        "320 px",
        "classes named by their members",
        "food and furniture told apart",
        *(row.name for row in paper.tables["table3_sam"].rows[4:]),
        *(row.name for row in paper.tables["table4_scr"].rows[7:]),
        *(row.name for row in paper.tables["table5_dinov2"].rows[3:]),
    }


def test_table_8_compares_every_reading_with_cliptrase(paper):
    """Quoted rows and ours, then other readings: all under one rule, without the [CLS] factor."""
    table = paper.tables["table8_unsupervised"]
    assert table.benchmarks == ("coco27", "cityscapes27")
    kinds = [(row.name, row.kind, row.versus) for row in table.rows]
    ours = ("CLIPtrase", "run", "")
    assert kinds[:5] == [(name, "quoted", "") for name in ("PiCIE", "STEGO", "HP", "SmooSeg")] + [
        ours
    ]
    others = table.rows[5:]
    assert kinds[5] == ours and {row.versus for row in others[1:]} == {"CLIPtrase"}
    assert [cell.run for cell in others[0].cells] == [cell.run for cell in table.rows[4].cells]
    runs = {row.name: [paper.runs[cell.run] for cell in row.cells if cell.run] for row in others}
    every = [run for of_row in runs.values() for run in of_row]
    assert {(run.protocol.rule, run.method.cls_logits) for run in every} == {("mmseg", False)}
    sizes = {name: {run.image_size for run in of_row} for name, of_row in runs.items()}
    assert sizes == {name: {336} for name in runs} | {"224 px": {224}, "320 px": {320}}
    regions = runs["320 px"][0].method.regions
    assert (regions.eps, regions.min_samples) == (pytest.approx(1.0), 6)
    lists = {
        run.vocabulary.classes.name
        for name in ("classes named by their members", "food and furniture told apart")
        for run in runs[name]
    }
    assert lists == {"coco27_members", "coco27_apart"}


def test_the_row_without_names_stands_alone(paper):
    """It is told no names: another task. And a few pictures have too few regions for it."""
    table = paper.tables["table8_without_names"]
    assert table.benchmarks == ("coco27", "cityscapes27")
    (row,) = table.rows
    assert (row.name, row.versus) == ("CLIPtrase, k-means + Hungarian", "")
    runs = [paper.runs[cell.run] for cell in row.cells]
    facts = {(run.method.name, run.image_size, run.protocol.rule) for run in runs}
    assert facts == {("cliptrase_unsupervised", 336, "mmseg")}


def test_grid_cells_are_not_published_one_by_one(paper):
    assert len(paper.main_runs) == len(paper.runs) - 63


@pytest.mark.parametrize("suite", plan.suites())
def test_every_suite_plans_and_prints_tsv_only(suite, capsys, monkeypatch):
    monkeypatch.setattr(plan, "load", functools.cache(plan.load))
    plan.main([suite])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pass\trun\tbenchmark\tmethod\timage_size"
    assert all(line.count("\t") == 4 for line in lines)
    assert len(lines) == 1 + len(plan.load(suite).runs)


def test_unknown_suite_is_one_message(capsys):
    with pytest.raises(SystemExit) as caught:
        plan.main(["shape"])
    assert caught.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "did you mean 'shapes'" in printed.err


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of conf/; conf(group, name, change) gives a file other keys, takes those of None."""
    shutil.copytree(config.files.CONF, tmp_path / "conf")
    monkeypatch.setattr(config.files, "CONF", tmp_path / "conf")

    def edit(group, name, change):
        path = tmp_path / "conf" / group / f"{name}.yaml"
        content = yaml.safe_load(path.read_text()) | change
        kept = {key: value for key, value in content.items() if value is not None}
        path.write_text(yaml.safe_dump(kept))

    return edit


def test_three_hundred_runs_need_no_more_passes_than_a_few(conf, smoke):
    conf("table", "fig7_sensitivity", {"eps": [round(0.4 + 0.02 * step, 2) for step in range(38)]})
    many = plan.load("smoke")
    assert len(many.runs) > 300 and many.passes.keys() == smoke.passes.keys()


def rows(*rows, **group):
    return {"groups": [{"name": "g", "rows": list(rows), **group}]}


CLIP = {"row": "a", "run": ["method=clip"]}


@pytest.mark.parametrize(
    ("group", "name", "change", "message"),
    [
        ("table", "table1_main", {"metrics": ["miou"]}, "unknown metric 'miou'"),
        ("table", "table1_main", {"colour": 1}, "unknown key 'colour'"),
        ("table", "table1_main", {"role": "mian"}, "unknown role 'mian'"),
        ("table", "table1_main", {"kind": "pie"}, "kind='pie'"),
        ("table", "table1_main", {"kind": ["grid"]}, r"kind=\['grid'\]"),
        ("suite", "smoke", {"tables": ["table9"]}, "unknown table 'table9'"),
        ("suite", "smoke", {"pictures": "table9"}, "smoke, pictures: unknown table 'table9'"),
        ("suite", "smoke", {"roles": {"minor": []}}, "unknown key 'minor'"),
        ("suite", "smoke", {"roles": 5}, "suite smoke: roles=5; give a mapping from roles"),
        ("suite", "smoke", {"roles": {"main": "shapes"}}, "suite smoke, roles: main='shapes'"),
        ("suite", "smoke", {"modle": "x"}, "did you mean 'model'"),
        ("suite", "smoke", {"overrides": ["limit=-1"]}, "limit=-1"),
        ("suite", "smoke", {"overrides": "limit=1"}, "suite smoke: overrides='limit=1'"),
        (
            "suite",
            "smoke",
            {"published": "n"},
            "suite smoke: published='n'; give true or false",
        ),
        *(
            ("suite", "smoke", {key: None}, f"suite smoke: `{key}` is missing")
            for key in ("title", "model", "protocol", "published", "roles", "tables", "overrides")
        ),
        *(
            ("table", "table1_main", {key: None}, f"table table1_main: `{key}` is missing")
            for key in ("title", "role", "metrics", "image_size", "groups")
        ),
        *(
            ("table", "fig7_sensitivity", {key: None}, f"fig7_sensitivity: `{key}` is missing")
            for key in ("run", "eps", "min_samples")
        ),
        (
            "table",
            "fig7_sensitivity",
            {"run": "method=clip"},
            "fig7_sensitivity: run='method=clip'",
        ),
        ("table", "fig7_sensitivity", {"eps": [0.5, "x"]}, "eps=.*a list of numbers"),
        ("table", "fig7_sensitivity", {"eps": [0.7, 0.5, 0.7]}, "eps: 0.7 is listed twice"),
        ("table", "fig7_sensitivity", {"min_samples": [3, 3]}, "min_samples: 3 is listed twice"),
        ("table", "table1_main", {"metrics": ["mIoU", "mIoU"]}, "metrics: 'mIoU' is listed twice"),
        (
            "suite",
            "smoke",
            {"tables": ["table1_main"] * 2},
            "tables: 'table1_main' is listed twice",
        ),
        ("table", "fig7_sensitivity", {"min_samples": [2.5]}, "min_samples=.*whole numbers"),
        ("table", "fig7_sensitivity", {"run": ["image_size=336"]}, "must not set image_size="),
        ("table", "table1_main", {"image_size": "2x4"}, "image_size='2x4'; give a whole number"),
        ("table", "table1_main", {"metrics": "mIoU"}, "metrics='mIoU'; give a list of metrics"),
        ("table", "table1_main", {"groups": [{"name": "g"}]}, "group 'g': `rows` is missing"),
        ("table", "table1_main", {"groups": [{"rows": [CLIP]}]}, "group '': `name` is missing"),
        ("table", "table1_main", {"groups": ["g"]}, "give a list of groups"),
        ("table", "table1_main", {"groups": rows(CLIP)["groups"] * 2}, "'g' is listed twice"),
        ("table", "table1_main", rows(CLIP, CLIP), "table1_main, group 'g': 'a' is listed twice"),
        ("table", "table1_main", rows({"row": "a"}), "table1_main, row 'a': `run` is missing"),
        ("table", "table1_main", rows({"run": []}), "table1_main, row '': `row` is missing"),
        ("table", "table1_main", rows({"row": [224], "run": []}), r"row=\[224\]; give text"),
        ("table", "table1_main", rows(CLIP | {"run": "method=clip"}), "row 'a': run='method=clip'"),
        ("table", "table1_main", rows(CLIP | {"quoted": True}), "row 'a': unknown key 'run'"),
        ("table", "table1_main", rows({"row": "CLIP", "quoted": "ye"}), "quoted='ye'; give true"),
        ("table", "table1_main", {"quoted": {"trainde": "yes"}}, "no row with {'trainde': 'yes'}"),
        (
            "table",
            "table1_main",
            rows({"row": "a", "run": ["method=clipp"]}),
            "table table1_main, row 'a': .*'clipp'",
        ),
        (
            "table",
            "table1_main",
            {"metrics": ["naming"]} | rows(CLIP | {"run": ["method=clip", "distractors=50"]}),
            "table table1_main, row 'a': ledger=true: with distractors",
        ),
    ],
)
def test_suites_and_tables_are_validated(conf, group, name, change, message):
    conf(group, name, change)
    with pytest.raises(UserError, match=message):
        plan.load("smoke")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("benchmark=shapes", "benchmark="),
        ("benchmark.dataset=shapes_clean", "benchmark.dataset="),
        ("model=vit_b16", "model="),
        ("model.path=elsewhere", "model.path="),
        ("protocol=crop", "protocol="),
        ("image_size=336", "image_size="),
        ("limit=2", "limit="),
        ("save_maps=2", "save_maps="),
        ("device=cuda:7", "device="),
        ("data=elsewhere", "data="),
    ],
)
def test_a_row_sets_nothing_that_the_plan_sets(conf, override, key):
    conf("table", "table1_main", rows(CLIP | {"run": ["method=clip", override]}))
    with pytest.raises(UserError, match=f"table table1_main, row 'a': `run` must not set {key}"):
        plan.load("smoke")


@pytest.mark.parametrize("name", ["a{b}", "a}", "a\nb"])
def test_a_name_that_the_workflow_would_read_otherwise_is_refused(conf, name):
    conf("suite", "smoke", {"data": name})
    with pytest.raises(UserError, match=r"suite smoke: .* no braces"):
        plan.load("smoke")


def test_a_suite_shows_no_pictures_of_a_table_that_it_does_not_show(conf):
    assert plan.load("smoke").pictures == "table6_metrics_224"
    conf("suite", "smoke", {"tables": ["table1_main"]})
    assert plan.load("smoke").pictures == ""


@pytest.mark.parametrize("name", ["-x", "..", ".x", "mine/x", *plan.TAKEN])
def test_a_suite_s_name_is_a_folder_of_its_own_in_results(monkeypatch, name):
    smoke = plan.read_suite("smoke")
    monkeypatch.setattr(plan, "read_suite", lambda _: smoke)
    with pytest.raises(UserError, match=r"its name is a folder of results/ .* rename its file"):
        plan.load(name)


@pytest.mark.parametrize("key", ["benchmark", "model", "protocol", "image_size", "out"])
def test_a_suite_s_overrides_set_nothing_that_it_has_a_key_for(conf, key):
    conf("suite", "smoke", {"overrides": ["limit=2", f"{key}=224"]})
    with pytest.raises(UserError, match=f"suite smoke: `overrides` must not set {key}="):
        plan.load("smoke")
    conf("suite", "smoke", {"overrides": ["limit=2", "protocol.rule=mmseg", "save_maps=3"]})
    runs = plan.load("smoke").runs
    assert {(run.limit, run.save_maps) for run in runs.values()} == {(2, 3)}
    assert plan.load("smoke", 4).runs.keys() == runs.keys()
    assert {run.save_maps for run in plan.load("smoke", 4).runs.values()} == {4}


def test_the_keys_of_a_suite_are_listed_on_a_page():
    page = (Path(__file__).resolve().parents[2] / "docs/running.md").read_text(encoding="utf-8")
    table = page.partition("A suite file has these keys")[2].partition("add_table.md")[0]
    assert re.findall(r"(?m)^\| `(\w+)` \|", table) == list(Suite.model_fields)
