"""`cliptrase list` and `clean`; what the commands of a day have in common."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.few_scenes import write_scenes

from cliptrase import cli, config, plan
from cliptrase.cli import clean
from cliptrase.files import sha256_file, sha256_text, write_json
from cliptrase.runs.finished import SEALED

DAY = ["list", "show", "compare", "repeat", "clean"]


def printed(capsys, *words):
    capsys.readouterr()
    cli.main([*map(str, words)])
    return capsys.readouterr().out


def contents(folder):
    """File → bytes of everything below a folder."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- list ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "group"),
    [
        ("methods", "method"),
        ("benchmarks", "benchmark"),
        ("models", "model"),
        ("suites", "suite"),
        ("tables", "table"),
    ],
)
def test_a_line_for_each_file(what, group, empty, capsys):
    names = sorted(path.stem for path in (config.files.CONF / group).glob("*.yaml"))
    lines = printed(capsys, "list", what).splitlines()
    assert [line.split()[0] for line in lines] == names
    assert all(len(line.split()) > 2 for line in lines)
    listed = json.loads(printed(capsys, "list", what, "--json"))
    assert [each["name"] for each in listed] == names
    assert all(each["about"] and "\n" not in each["about"] for each in listed)


def test_titles_and_comments(empty, capsys):
    about = {
        each["name"]: each["about"]
        for what in ("suites", "methods", "benchmarks")
        for each in json.loads(printed(capsys, "list", what, "--json"))
    }
    assert about["smoke"] == plan.load("smoke").title
    assert about["cliptrase"] == "CLIPtrase (ECCV 2024) as its authors released it."
    assert about["folder"].endswith("[benchmark.background=FILE].")


def test_which_benchmarks_are_prepared(tmp_path, capsys):
    data = write_scenes(tmp_path, range(2))
    listed = json.loads(printed(capsys, "list", "benchmarks", "--data", data, "--json"))
    prepared = {each["name"]: each["prepared"] for each in listed}
    assert prepared["shapes"] and prepared["shapes_fine"] and prepared["folder"] is None
    assert prepared["voc20"] is prepared["shapes_clean"] is False
    lines = printed(capsys, "list", "benchmarks", "--data", data).splitlines()
    marked = {line.split()[0] for line in lines if line.endswith(" [not prepared]")}
    assert marked == {name for name, there in prepared.items() if there is False}


# --- clean ---------------------------------------------------------------------------------------


def write_run(folder):
    """Files as a run's folder has them."""
    folder.mkdir(parents=True)
    for name in SEALED:
        (folder / name).write_text(name * 100)
    files = {name: sha256_file(folder / name) for name in SEALED}
    write_json(folder / "provenance.json", {"files": files})
    return folder


def name(readable):
    return f"{readable}.{sha256_text(readable)[:10]}"


@pytest.fixture
def results(smoke, tmp_path, monkeypatch):
    """Results with runs, passes and sweeps, some of which no suite has; and what is no run's."""
    monkeypatch.setattr(plan, "suites", lambda: ["smoke"])  # to plan all takes seconds
    folder = tmp_path / "results"
    needed = next(iter(smoke.runs))
    runs = [needed, name("mine.clip"), name("mine.sclip"), name("other.clip")]
    for each in runs:
        write_run(folder / "runs" / each)
    (folder / "runs" / runs[1] / "maps").mkdir()
    (folder / "runs" / runs[1] / "maps" / "0.png").write_bytes(b"0" * 1000)
    write_json(folder / "passes" / "smoke" / f"{next(iter(smoke.passes))}.json", {})
    write_json(folder / "passes" / "smoke" / "nothing.json", {})
    write_json(folder / "passes" / "gone" / "shapes.json", {})
    for sweep, swept in (("0" * 10, runs[1:3]), ("1" * 10, [needed, runs[1]])):
        file = folder / "sweeps" / f"{sweep}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps([{"run": run} for run in swept] + [{"error": "failed"}]))
        file.with_suffix(".csv").write_text("run\n")
    (folder / "smoke" / "tables").mkdir(parents=True)
    (folder / "smoke" / "tables" / "table.csv").write_text("1")
    return folder


UNNEEDED = [
    f"runs/{name('mine.clip')}",
    f"runs/{name('mine.sclip')}",
    f"runs/{name('other.clip')}",
    "passes/gone/shapes.json",
    "passes/smoke/nothing.json",
    f"sweeps/{'0' * 10}.csv",
    f"sweeps/{'0' * 10}.json",
]


def listed(capsys, results, *words):
    found = json.loads(printed(capsys, "clean", "--results", results, "--json", *words))
    return {str(Path(each["path"]).relative_to(results)): each for each in found}


def test_what_no_suite_needs_is_listed_and_stays(results, capsys):
    before = contents(results)
    found = listed(capsys, results)
    assert sorted(found) == sorted(UNNEEDED)
    for path, each in found.items():
        here = results / path
        files = [here] if here.is_file() else [*contents(here)]
        assert each["bytes"] == sum(len(file.read_bytes()) for file in files) > 0
    out = printed(capsys, "clean", "--results", results)
    assert [each in out for each in UNNEEDED] == [True] * 7
    assert out.endswith("7 paths, 0.0 MB; with --yes the same command removes them\n")
    assert contents(results) == before


def test_what_any_suite_has_stays(paper, tmp_path, capsys):
    write_run(tmp_path / "runs" / next(iter(paper.runs)))
    write_json(tmp_path / "passes" / "paper" / f"{next(iter(paper.passes))}.json", {})
    assert listed(capsys, tmp_path) == {}


def test_yes_removes_exactly_what_was_listed(results, capsys):
    before, found = contents(results), listed(capsys, results)
    gone = [results / path for path in found]
    out = printed(capsys, "clean", "--results", results, "--yes")
    assert out.endswith("removed 7 paths\n")
    left = {
        path: content
        for path, content in before.items()
        if not any(path == each or each in path.parents for each in gone)
    }
    assert contents(results) == left and len(left) < len(before)
    assert printed(capsys, "clean", "--results", results) == "nothing to remove\n"


def test_names_to_keep(results, capsys):
    found = listed(capsys, results, "--keep", "mine.*", "--keep", "*.nothing.*")
    assert sorted(found) == sorted(set(UNNEEDED[2:5]))
    listed(capsys, results, "--keep", "mine.*", "--yes")
    assert (results / UNNEEDED[0]).is_dir() and (results / UNNEEDED[5]).is_file()
    assert not (results / UNNEEDED[2]).exists()


def test_what_is_no_run_is_left_alone(results, tmp_path, capsys):
    """A link, a folder with other files in it, one of another name; what a link leads to."""
    outside = write_run(tmp_path / "elsewhere" / name("linked"))
    (results / "runs" / outside.name).symlink_to(outside)
    thesis = write_run(results / "runs" / name("thesis"))
    (thesis / "chapter1.tex").write_text("all of it")
    write_run(results / "runs" / "not a run's name")
    (results / "runs" / "notes.txt").write_text("mine")
    (results / "passes" / "linked").symlink_to(tmp_path / "elsewhere")
    write_json(tmp_path / "elsewhere" / "precious.json", {})
    (results / "sweeps" / "notes.json").write_text('{"mine": 1}')
    (results / "sweeps" / "broken.json").write_text("{")
    before = contents(tmp_path)
    assert sorted(listed(capsys, results)) == sorted(UNNEEDED)
    gone = [results / path for path in listed(capsys, results, "--yes")]
    left = {
        path: content
        for path, content in before.items()
        if not any(path == each or each in path.parents for each in gone)
    }
    assert contents(tmp_path) == left
    assert (results / "runs" / outside.name).is_symlink()


def test_runs_behind_a_link_are_left_alone(results, tmp_path, capsys):
    shutil.move(results / "runs", tmp_path / "scratch")
    (results / "runs").symlink_to(tmp_path / "scratch")
    before = contents(tmp_path / "scratch")
    assert not any(path.startswith("runs/") for path in listed(capsys, results, "--yes"))
    assert contents(tmp_path / "scratch") == before


def test_a_results_folder_that_is_a_link_is_cleaned(results, tmp_path, capsys):
    link = tmp_path / "link"
    link.symlink_to(results)
    assert sorted(listed(capsys, link, "--yes")) == sorted(UNNEEDED)
    assert not (results / UNNEEDED[0]).exists()


def test_what_cannot_be_removed_is_told(results, capsys, monkeypatch):
    stuck = results / UNNEEDED[1]
    discard = clean.discard
    monkeypatch.setattr(clean, "discard", lambda path: path == stuck or discard(path))
    with pytest.raises(SystemExit) as ended:
        cli.main(["clean", "--results", str(results), "--yes"])
    out, err = capsys.readouterr()
    assert ended.value.code == 1 and out.endswith("removed 6 paths\n")
    assert err == f"error: 1 path could not be removed: {stuck}\n" and stuck.is_dir()


def test_a_suite_that_cannot_be_planned_removes_nothing(results, capsys, monkeypatch):
    monkeypatch.setattr(plan, "suites", lambda: ["smoke", "broken"])
    before = contents(results)
    with pytest.raises(SystemExit):
        cli.main(["clean", "--results", str(results), "--yes"])
    assert "broken" in capsys.readouterr().err and contents(results) == before


# --- in common -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", DAY)
def test_help_starts_at_once(command):
    code = (
        "import sys\nfrom cliptrase.cli import main\n"
        f"try: main(['{command}', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'hydra', 'pandas', 'sklearn', 'datasets', 'wandb'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"usage: cliptrase {command} " in done.stdout and "--json" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list"], "WHAT"),
        (["list", "things"], "invalid choice: 'things'"),
        (["show"], "RUN"),
        (["compare", "one"], "OTHER"),
        (["repeat", "x", "--devise", "cpu"], "--devise"),
        (["clean", "--yes", "now"], "now"),
        (["clean", "--keep"], "--keep"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["repeat", "x", "--device", "gpu"], "device=gpu: unknown value"),
        (["clean", "--results", "nowhere"], "--results nowhere: no such folder"),
        (["show", "https://host/run"], "no such run"),
        (["list", "runs", "--results", "s3://bucket"], "s3://bucket: an address"),
    ],
)
def test_a_wrong_value_is_one_line(words, message, empty, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    out, err = capsys.readouterr()
    assert ended.value.code == 1 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_the_page_shows_commands_that_exist():
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    shown = {*re.findall(r"^(?:\$ |\| `)?cliptrase (\w+)", page, re.MULTILINE)}
    assert {*DAY} <= shown <= {*cli.OWN, *cli.HANDED_ON}
    for options in re.findall(r"^\$ cliptrase ([^|\n]+)", page, re.MULTILINE):
        cli._parser().parse_args(shlex.split(options))


def test_nobody_reads_on(results):
    """`cliptrase list benchmarks | head -1` and its like end quietly."""
    program = f"{sys.executable} -m cliptrase.cli"
    for words in ("list benchmarks", "list methods --json", f"clean --results {results} --yes"):
        line = f"set -o pipefail; {program} {words} | head -1"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert done.stdout.count("\n") == 1 and not done.stderr and done.returncode == 0, words
    assert not (results / UNNEEDED[0]).exists()  # its work was done


def test_a_hostile_name_of_a_run(tmp_path, capsys):
    evil = write_run(tmp_path / "runs" / name("\x1b[2Jmine\u202e"))
    os.unlink(evil / "metrics.json")
    out = printed(capsys, "list", "runs", "--results", tmp_path)
    out += printed(capsys, "clean", "--results", tmp_path)
    assert "\x1b" not in out and "\u202e" not in out and out.count("\\x1b[2Jmine\\u202e") == 2
