"""The page of a suite without a browser: what stands in it, missing and odd input, its bytes."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.publish.conftest import PROVENANCE, draw, load_plan, make_pass_files, make_runs
from tests.unit.publish.pages import (
    HOSTILE,
    data_of,
    hostile,
    keep_drawn,
    make_page,
    shelf_of,
    write_page,
)

from cliptrase.publish import run_pairs
from cliptrase.publish.page import command as page
from cliptrase.publish.page import contents, kept_pictures, run_facts
from cliptrase.publish.run_folders import Folder
from cliptrase.runs import finished, store


@pytest.fixture(scope="module")
def smoke():
    return load_plan("smoke")


@pytest.fixture(scope="module")
def first_table(smoke):
    """The suite with its first table alone: six runs."""
    name, table = next(iter(smoke.tables.items()))
    runs = {cell.run for row in table.rows for cell in row.cells}
    runs = {run: smoke.runs[run] for run in smoke.runs if run in runs}
    return replace(smoke, tables={name: table}, runs=runs, pictures="")


@pytest.fixture(scope="module")
def facts(smoke, whole):
    return contents.page_facts(smoke, shelf_of(smoke, whole[0]))


@pytest.fixture(scope="module")
def whole(smoke, tmp_path_factory):
    """A results folder with a page and everything on it."""
    results = tmp_path_factory.mktemp("page")
    return results, make_page(smoke, results)


def test_the_same_runs_give_the_same_bytes(facts, whole):
    assert page.page_text(facts) == whole[1]


def test_figure_8_is_linked_where_it_was_made(facts):
    link = 'href="san/fig8_convergence.png"'
    assert link not in page.page_text(facts)
    assert link in page.page_text(facts | {"figure_8": True})


def test_every_pair_is_what_the_comparison_of_two_runs_says(whole):
    results, text = whole
    data, compared = data_of(text), set()
    for group in data["groups"]:
        names = group["runs"]
        rules = [data["runs"][name]["rule"] for name in names]
        order = [
            (i, j)
            for i, j in itertools.permutations(range(len(names)), 2)
            if j > i or rules[i] != rules[j]
        ]
        assert len(order) == len(group["pairs"])
        different = [pair for pair in order if rules[pair[0]] != rules[pair[1]]]
        for i, j in {*order[::53], *different[:4]}:
            facts = run_pairs.compare(*(Folder(results / "runs" / names[k]) for k in (i, j)))
            noted, *numbers = group["pairs"][order.index((i, j))]
            assert group["notes"][noted] == facts["notes"]
            expected = [
                f"{value:.2f}" for metric in facts["metrics"].values() for value in metric[2:]
            ]
            assert [f"{value / 100:.2f}" for value in numbers[:12]] == expected
            better = [row["difference"] > 0 for row in facts["by_image"]]
            worse = [row["difference"] < 0 for row in facts["by_image"]]
            assert numbers[12:14] == [sum(better), sum(worse)]
            shown = [tuple(numbers[at : at + 4]) for at in range(14, len(numbers), 4)]
            rows = [row for row in facts["by_image"][: run_facts.MOST] if row["difference"]]
            assert [
                (group["images"][image], *(f"{value / 10:.1f}" for value in rest))
                for image, *rest in shown
            ] == [
                (row["name"], *(f"{row[key]:.1f}" for key in ("value", "other", "difference")))
                for row in rows
            ]
            compared.add((rules[i], rules[j]))
    assert len(compared) > 2  # also across rules, both ways round


def test_the_cells_of_a_table_are_those_of_its_csv(facts, whole):
    _, text = whole
    for table in facts["tables"]:
        cells = [
            cell
            for panel in table["panels"]
            for _, rows in panel["sections"]
            for row in rows
            for cell in row["cells"]
            if cell and cell["run"]
        ]
        lines = [*csv.DictReader(io.StringIO(table["files"]["CSV"]))]
        printed = {line["run"]: float(line["value"]) for line in lines if line["run"]}
        if len({line["metric"] for line in lines}) == 1:
            shown = {cell["run"]: float(cell["text"]) for cell in cells}
            assert shown == pytest.approx(printed, abs=0.0051)
    assert text.count('class="best"') >= len(facts["tables"])


def test_an_image_is_chosen_once_and_for_what_is_said():
    ids, values = [f"{i}" for i in range(20)], np.arange(20.0)
    values[3] = np.nan
    chosen = kept_pictures.chosen(ids, values)
    by = {why: [place for place, each in chosen if each == why] for why in ("best", "worst")}
    assert by == {"best": [19, 18, 17, 16], "worst": [0, 1, 2, 4]}
    drawn = [place for place, why in chosen if why == "drawn"]
    assert len(drawn) == 4 and not {*drawn} & {*by["best"], *by["worst"], 3}
    # by id, whatever the order of the images and their scores
    turned = kept_pictures.chosen(ids[::-1], values[::-1])
    assert [ids[::-1][place] for place, why in turned if why == "drawn"] == [ids[p] for p in drawn]
    assert [why for _, why in kept_pictures.chosen(ids[:5], values[:5])] == ["best"] * 4
    assert kept_pictures.chosen(ids[:1], np.array([np.nan])) == []


def test_a_missing_run_and_a_half_written_one_leave_a_gap_with_its_reason(first_table, tmp_path):
    lost, torn, *_ = make_runs(first_table, tmp_path)
    (tmp_path / "runs" / lost).rename(tmp_path / "elsewhere")
    (tmp_path / "runs" / torn / "confusion.npz").write_bytes(b"PK")
    text = write_page(first_table, tmp_path)
    assert "2 missing" in text
    assert f"<code>{lost}</code>: not run yet" in text or f"<code>{lost}</code>: dataset" in text
    assert re.search(rf"<code>{re.escape(torn)}</code>: [^<]*confusion.npz is not what", text)
    assert not {lost, torn} & data_of(text)["runs"].keys()
    assert text.count("–<sup>") == 2 + 1  # with the average of their row


@pytest.mark.parametrize("classes", [1, 847])
def test_one_class_and_very_many(first_table, tmp_path, classes):
    make_runs(first_table, tmp_path, images=2, classes=classes)
    text = write_page(first_table, tmp_path)
    group = data_of(text)["groups"][0]
    assert len(group["classes"]) == classes and len(text) < 1_500_000


def test_one_run_alone(first_table, tmp_path):
    (name,) = make_runs(first_table, tmp_path, [next(iter(first_table.runs))], images=1)
    data = data_of(write_page(first_table, tmp_path))
    assert [*data["runs"]] == [name] and data["groups"][0]["pairs"] == []


def test_names_are_text_whatever_is_in_them(smoke, tmp_path):
    suite = hostile(smoke)
    make_runs(suite, tmp_path)
    text = write_page(suite, tmp_path)
    assert text.count("</script>") == 2 and "<img src=x" not in text and "7*7" in text
    assert "\u202e" not in text and "\x07" not in text
    shown = [row for run in data_of(text)["runs"].values() for _, row in run["shown"]]
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[2]} <= {*shown}


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda file, runs: file.unlink(), "none are kept"),
        (lambda file, runs: file.write_bytes(file.read_bytes()[:900]), "is damaged"),
        (lambda file, runs: file.write_bytes(b""), "is damaged"),
        (lambda file, runs: make_runs(*runs, images=14), "are of other runs"),
    ],
    ids=["missing", "torn", "empty", "other runs"],
)
def test_pictures_that_cannot_be_shown_leave_their_reason(smoke, tmp_path, harm, reason):
    table = smoke.tables[smoke.pictures]
    suite = replace(smoke, tables={table.name: table})
    names = [cell.run for row in table.rows for cell in row.cells if cell.run]
    make_runs(suite, tmp_path, names)
    benchmark = table.benchmarks[0]
    keep_drawn(suite, tmp_path, benchmark, ["a", "b", "c"])
    runs = {name: smoke.runs[name] for name in names}
    assert f'data-benchmark="{benchmark}"' in write_page(replace(suite, runs=runs), tmp_path)
    file = kept_pictures.file_of(tmp_path, "smoke", benchmark)
    harm(file, (suite, tmp_path, names))
    text = write_page(replace(suite, runs=runs), tmp_path)
    assert re.search(rf"No pictures of {benchmark}: [^<]*{reason}", text)
    assert '<a href="#picture=' not in text


def test_a_page_is_written_whole_or_not_at_all(facts, whole, monkeypatch, capsys):
    results, text = whole
    monkeypatch.setattr(
        contents,
        "page_facts",
        lambda suite, shelf: {("smoke", results): facts}[suite.suite, shelf.results],
    )
    file = results / "smoke" / "index.html"
    command = ["smoke", "--results", str(results), "--data", "no data"]
    page.main(command)
    assert capsys.readouterr().out == f"{file}\n"
    assert file.read_text(encoding="utf-8") == text
    before = {each.name for each in file.parent.iterdir()}

    def broken(facts):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(page, "page_text", broken)
    with pytest.raises(RuntimeError):
        page.main(command)
    assert file.read_text(encoding="utf-8") == text
    assert {each.name for each in file.parent.iterdir()} == before


def test_without_a_run_there_is_one_message_and_no_page(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        page.main(["smoke", "--results", str(tmp_path)])
    assert ended.value.code == 1
    assert "no run of suite smoke to show" in capsys.readouterr().err
    assert not (tmp_path / "smoke").exists()


def test_what_a_run_cost_is_counted_once_a_pass(smoke, facts):
    runs = copy.deepcopy(facts["script"]["runs"])
    for each in smoke.passes.values():
        for run in each.runs:
            runs[run]["cost"]["seconds"] = {"open": 1.0, "encode": 3.0, "images": 4.0}
    cost = contents._cost(smoke, runs)
    assert cost["total"] == 4.0 * len(smoke.passes)
    assert [stage for stage, *_ in cost["stages"]] == ["open", "encode"]
    assert [name for name, *_ in cost["passes"]] == [*smoke.passes]


def test_runs_of_other_names_of_classes_are_compared_under_their_own(first_table, tmp_path):
    name, other = list(first_table.runs)[0:2]
    make_runs(first_table, tmp_path, [name])
    run, odd = first_table.runs[other], ["one", "two", "three"]
    made = PROVENANCE | {"labels": finished.labels_digest(run)}
    truth = draw(name, first_table.runs[name], 6, 3)  # the same images and truth
    store.write(tmp_path / "runs", run, replace(truth, names=odd), made)
    data = data_of(write_page(first_table, tmp_path))
    (group,) = data["groups"]
    assert group["runs"] == [name, other] and group["classes"] == [f"class {i}" for i in range(3)]
    assert "names" not in data["runs"][name] and data["runs"][other]["names"] == odd
    assert {each["truth"] for each in data["runs"][other]["confusions"]} <= {*odd}
    (pair,) = group["pairs"]
    assert "other names of classes" in group["notes"][pair[0]][0]


def test_pass_files_are_not_needed(first_table, tmp_path):
    make_runs(first_table, tmp_path)
    before = write_page(first_table, tmp_path)
    make_pass_files(first_table, tmp_path)
    assert write_page(first_table, tmp_path) == before
