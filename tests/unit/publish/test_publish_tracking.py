"""W&B: what is published, what the ledger remembers, and that a failing W&B fails nothing."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.provenance import change_provenance

from cliptrase.errors import UserError
from cliptrase.files import sha256_file
from cliptrase.plan import Plan
from cliptrase.publish import tracking
from cliptrase.publish.results import Shelf
from cliptrase.publish.tables.cells import COLUMNS
from cliptrase.publish.tracking import TAG, Ledger, _items, _send, cut, main, publish, read_tracking
from cliptrase.runs import finished

OFFLINE = "offline:/cliptrase"


class FakeRun(SimpleNamespace):
    """What `wandb.init` returns."""

    def finish(self, exit_code: int) -> None:
        assert exit_code == 0
        self.begun.append(self)


class FakeWandb(SimpleNamespace):
    """As much of wandb as is used; `begun` holds what was published, `fails` what goes wrong."""

    def __init__(self) -> None:
        super().__init__(begun=[], fails={}, errors=SimpleNamespace(UsageError=RuntimeError))

    def init(self, **arguments: Any) -> Any:
        if arguments["name"] in self.fails or "*" in self.fails:
            raise self.fails.get(arguments["name"], self.fails.get("*"))
        folder = f"offline-run-{len(self.begun)}-{arguments['id']}"
        Path(arguments["dir"], "wandb", folder).mkdir(parents=True)
        settings = SimpleNamespace(sync_dir=folder)
        more = {"settings": settings, "summary": {}, "logged": {}, "begun": self.begun}
        run = FakeRun(**arguments | more, artifacts=[])
        run.log, run.log_artifact = run.logged.update, run.artifacts.append
        return run

    def Artifact(self, name: str, type: str) -> Any:
        artifact = SimpleNamespace(name=name, type=type, files=[])
        artifact.add_file = lambda path, **_: artifact.files.append(path)
        return artifact

    def login(self, **_: Any) -> bool:
        return False

    def Settings(self, **options: Any) -> Any:
        return SimpleNamespace(**options)

    def Table(self, columns: list[str], data: list[list[Any]]) -> Any:
        assert all(len(row) == len(columns) for row in data)
        return SimpleNamespace(columns=columns, data=data)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture(scope="module")
def suite(paper: Plan) -> Plan:
    """The paper's suite with a table and the grid alone."""
    tables = {name: paper.tables[name] for name in ("table1_main", "fig7_sensitivity")}
    return replace(paper, tables=tables)


@pytest.fixture
def results(
    suite: Plan, whole_paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Four runs: three of table 1, one cell of the grid."""
    monkeypatch.setattr(tracking.plan, "load", lambda name: suite)
    main = {cell.run for row in suite.tables["table1_main"].rows for cell in row.cells}
    for name in suite.runs:
        if name.startswith("voc20.") and (name in main or ".eps-0.5.min_samples-2." in name):
            shutil.copytree(whole_paper / "runs" / name, tmp_path / "runs" / name)
    assert len(list((tmp_path / "runs").iterdir())) == 4
    return tmp_path


def run(results: Path, *more: str) -> Ledger:
    main(["paper", "--results", str(results), "--data", str(results), *more])
    return Ledger.read(results / "paper" / "wandb" / "ledger.json")


def test_runs_and_tables_are_published_and_grid_cells_are_not_runs(
    suite: Plan, results: Path, fake: FakeWandb
) -> None:
    entries = run(results).places[OFFLINE]
    shown = [name for name in suite.main_runs if (results / "runs" / name).exists()]
    assert sorted(entries) == sorted([*shown, "tables"]) and len(shown) == 3
    for name in shown:
        assert entries[name]["sha256"] == sha256_file(results / "runs" / name / "metrics.json")
    by_name = {one.name: one for one in fake.begun}
    name = next(name for name in shown if ".sclip." in name)
    one = by_name[name]
    assert (one.project, one.group, one.mode) == ("cliptrase", "paper", "offline")
    assert one.tags == ["voc20", "sclip", "336"]
    assert one.config["method"]["attention"]["terms"] == ["qq", "kk"]
    said = json.loads((results / "runs" / name / "metrics.json").read_text())
    assert one.summary["mIoU"] == said["mIoU"] and one.summary["mIoU/low"] == said["ci"]["mIoU"][0]
    assert one.logged["iou"].data == [[each["name"], each["value"]] for each in said["iou"]]
    tables = by_name["paper tables"]
    assert tables.tags == ["tables"] and list(tables.logged) == list(suite.tables)
    grid = tables.logged["fig7_sensitivity"]
    assert grid.columns == list(COLUMNS) and len(grid.data) == 65
    assert sum(row[COLUMNS.index("value")] is not None for row in grid.data) == 1


def test_the_page_and_its_pictures_are_an_artifact_of_the_tables(
    results: Path, fake: FakeWandb
) -> None:
    """Pictures that changed are published again, with the page."""
    assert run(results).places[OFFLINE] and fake.begun[-1].artifacts == []
    page, kept = results / "paper/index.html", results / "paper/pictures/voc20.npz"
    for path in (page, kept):
        path.parent.mkdir(exist_ok=True)
        path.write_text("shown")
    for content in ("shown", "shown", "shown otherwise"):
        page.write_text(f"{content}, another day")
        kept.write_text(content)
        run(results)
    published = [one for one in fake.begun if one.artifacts]
    assert [one.name for one in published] == ["paper tables"] * 2
    (artifact,) = published[-1].artifacts
    assert (artifact.type, artifact.files) == ("page", [str(page), str(kept)])


def test_publishing_twice_publishes_nothing(results: Path, fake: FakeWandb) -> None:
    run(results)
    first = (results / "paper" / "wandb" / "ledger.json").read_bytes()
    count = len(fake.begun)
    run(results)
    assert len(fake.begun) == count == 4
    assert (results / "paper" / "wandb" / "ledger.json").read_bytes() == first


def test_a_run_that_changed_takes_the_place_of_the_old_one(
    suite: Plan, results: Path, fake: FakeWandb
) -> None:
    before = run(results).places[OFFLINE]
    name = next(name for name in before if ".clip." in name)
    path = results / "runs" / name / "metrics.json"
    path.write_text(path.read_text() + "\n")
    change_provenance(path.parent, files=finished.file_digests(path.parent))
    after = run(results).places[OFFLINE]
    assert [one.name for one in fake.begun[4:]] == [name]
    assert after[name]["id"] == before[name]["id"]
    assert after[name]["sha256"] == sha256_file(path) != before[name]["sha256"]
    folders = [p.name for p in (results / "paper" / "wandb").glob(f"*{after[name]['id']}")]
    assert folders == [after[name]["folder"]]


def test_each_project_and_mode_is_a_place_of_its_own(results: Path, fake: FakeWandb) -> None:
    first = run(results)
    both = run(results, "tracking.project=elsewhere", "tracking.entity=us").places
    assert sorted(both) == [OFFLINE, "offline:us/elsewhere"]
    assert len(fake.begun) == 8 and fake.begun[-1].entity == "us"
    ids = {entry["id"] for entries in both.values() for entry in entries.values()}
    assert len(ids) == 8
    assert both[OFFLINE] == first.places[OFFLINE]


def test_a_failing_wandb_fails_nothing_and_is_tried_again(
    results: Path, fake: FakeWandb, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.fails["paper tables"] = RuntimeError("the disk of W&B\nis full")
    main(["paper", "--results", str(results), "--data", str(results)])  # no SystemExit: code 0
    content = json.loads((results / "paper" / "wandb" / "ledger.json").read_text())
    assert content["failed"] == {"tables": "RuntimeError: the disk of W&B is full"}
    assert len(content["places"][OFFLINE]) == 3 and "tables" not in content["places"][OFFLINE]
    assert "1 failed" in capsys.readouterr().out
    fake.fails.clear()
    assert "tables" in run(results).places[OFFLINE]
    assert len(fake.begun) == 4
    content = json.loads((results / "paper" / "wandb" / "ledger.json").read_text())
    assert content["failed"] == {}


def test_without_wandb_or_network_it_gives_up_at_once(
    results: Path, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    fake.fails["*"] = type("CommError", (Exception,), {})("no such host")
    run(results)
    content = json.loads((results / "paper" / "wandb" / "ledger.json").read_text())
    assert len(content["failed"]) == 1 and "no such host" in caplog.text
    fake.fails["*"] = OSError(28, "No space left on device")
    run(results)
    content = json.loads((results / "paper" / "wandb" / "ledger.json").read_text())
    assert len(content["failed"]) == 1 and "No space left" in "".join(content["failed"].values())
    monkeypatch.setitem(sys.modules, "wandb", None)  # import wandb raises ImportError
    run(results)
    content = json.loads((results / "paper" / "wandb" / "ledger.json").read_text())
    assert "ModuleNotFoundError" in "".join(content["failed"].values())


def test_long_tags_and_names_are_cut_with_a_digest() -> None:
    assert cut("x" * 64, TAG) == "x" * 64
    one, other = cut("x" * 80 + "1", TAG), cut("x" * 80 + "2", TAG)
    assert len(one) == len(other) == 64 and one != other
    assert one.startswith("x" * 53 + "-") and cut("x" * 80 + "1", TAG) == one


def test_a_benchmark_with_a_long_name_is_published(
    suite: Plan, results: Path, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "of_my_own_" * 14
    named = {
        name: run.model_copy(update={"benchmark": run.benchmark.model_copy(update={"name": long})})
        for name, run in suite.runs.items()
    }
    items = [
        make() for _, make in _items(replace(suite, runs=named), Shelf(suite, results, results))
    ]
    for item in filter(None, items):
        _send(replace(item, name=item.name + long), long, results, read_tracking(None, []))
    assert len(fake.begun) == 4
    for one in fake.begun:
        assert all(1 <= len(tag) <= 64 for tag in one.tags)
        assert len(one.name) <= 128 and len(one.group) <= 128
    assert [one.tags[0][:10] for one in fake.begun[:3]] == ["of_my_own_"] * 3


@pytest.mark.parametrize("kind", ["UsageError", "ValueError", "CommandError"])
def test_a_run_that_cannot_be_published_does_not_stop_the_others(
    kind: str, results: Path, fake: FakeWandb
) -> None:
    first = min((results / "runs").glob("*.clip.*")).name
    fake.fails[first] = type(kind, (Exception,), {})("Tag is 70 characters")
    ledger = run(results)
    content = json.loads(ledger.path.read_text())
    assert content["failed"] == {first: f"{kind}: Tag is 70 characters"}
    assert len(ledger.places[OFFLINE]) == 3 and first not in ledger.places[OFFLINE]


def test_tables_that_cannot_be_made_do_not_stop_the_runs(
    results: Path, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> None:
        raise UserError("counts.npz: damaged")

    monkeypatch.setattr("cliptrase.publish.tables.cells.tidy", damaged)
    ledger = run(results)
    assert len(ledger.places[OFFLINE]) == 3
    failed = json.loads(ledger.path.read_text())["failed"]
    assert failed == {"tables": "UserError: counts.npz: damaged"}


def test_online_without_an_account_says_how_to_get_one(
    results: Path, fake: FakeWandb, caplog: Any
) -> None:
    run(results, "tracking.mode=online")
    assert "wandb login" in caplog.text and not fake.begun


def test_disabled_publishes_nothing_and_writes_a_ledger(results: Path, fake: FakeWandb) -> None:
    ledger = run(results, "--mode", "disabled")
    assert ledger.places == {} and not fake.begun


@pytest.mark.parametrize(
    "content",
    ['{"places": ', '{"places": 1}', '{"places": {"a": 1}}', '{"places": {"a": {"b": 1}}}'],
)
def test_a_damaged_ledger_is_not_overwritten(
    suite: Plan, results: Path, fake: FakeWandb, content: str
) -> None:
    path = results / "paper" / "wandb" / "ledger.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match="delete it"):
        publish(suite, results, results, read_tracking(None, []))
    assert path.read_text() == content and not fake.begun


def test_a_ledger_that_cannot_be_written_is_told_before_anything_is_sent(
    suite: Plan, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (results / "paper").mkdir()
    (results / "paper" / "wandb").touch()
    monkeypatch.setattr(tracking, "_items", pytest.fail)
    with pytest.raises(UserError, match=r"ledger\.json: .* stands in the way"):
        publish(suite, results, results, read_tracking(None, []))


def test_a_disk_that_fills_up_under_the_real_wandb_is_no_traceback(
    results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import wandb

    def refuse(*_: object, **__: object) -> None:
        logging.getLogger("wandb").handle(logging.makeLogRecord({"msg": "%d", "args": ("no",)}))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logging.getLogger("wandb"), "disabled", False)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr(wandb, "Table", refuse)
    main(["paper", "--results", str(results), "--data", str(results)])
    said = capfd.readouterr().err
    assert "Traceback" not in said and "Logging error" not in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tracking.mode=offlin", "offline"),
        ("tracking.projekt=x", "did you mean 'project'"),
        ("mode=online", "tracking.mode=online"),
    ],
)
def test_a_wrong_override_is_refused_by_name(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_tracking(None, [override])


def test_real_wandb_writes_offline_runs_into_the_results(suite: Plan, results: Path) -> None:
    ledger = run(results)
    folder = results / "paper" / "wandb"
    entries = ledger.places[OFFLINE]
    assert len(entries) == 4
    made = sorted(path.name for path in folder.glob("offline-run-*"))
    assert made == sorted(entry["folder"] for entry in entries.values())
    for name, entry in entries.items():
        (file,) = (folder / entry["folder"]).glob("*.wandb")
        content = file.read_bytes()
        assert b"paper" in content and entry["id"].encode() in content
        if name != "tables":
            assert name.encode() in content and b"voc20" in content and b"mIoU" in content
    tables = list((folder / entries["tables"]["folder"] / "files/media/table").rglob("*.json"))
    columns = {tuple(json.loads(table.read_text())["columns"]) for table in tables}
    assert len(tables) == len(suite.tables) and columns == {COLUMNS}
    run(results)
    assert sorted(path.name for path in folder.glob("offline-run-*")) == made
