"""What a sweep ends in, and `evaluate --json`."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cliptrase import cli
from cliptrase.config.metric_names import METRICS
from cliptrase.evaluate import __main__ as command
from cliptrase.evaluate import sweep_table
from cliptrase.runs import store


@pytest.fixture
def words(model, data, tmp_path, monkeypatch):
    """Overrides of a run on two scenes with the small model; the current folder is empty."""
    monkeypatch.chdir(tmp_path)
    small = ["model=local", f"model.path={model}", "image_size=112", "limit=2"]
    return [*small, f"data={data}", "device=cpu", "workers=1"]


def made(arguments, capsys, code=0):
    """What a command printed."""
    capsys.readouterr()
    if code:
        with pytest.raises(SystemExit) as ended:
            command.main(arguments)
        assert ended.value.code == code
    else:
        command.main(arguments)
    return capsys.readouterr()


def written(kind):
    (file,) = Path("results/sweeps").glob(f"*.{kind}")
    return file


def test_a_line_a_point_and_the_best_of_each_benchmark(words, capsys):
    """The csv holds the metrics of the runs; a point that failed has its error."""
    words.remove("image_size=112")
    arguments = ["-m", *words, "benchmark=shapes,shapes_bg", "image_size=112,100,128"]
    printed = made(arguments, capsys, code=1)
    frame = pd.read_csv(written("csv"))
    assert frame["benchmark"].tolist() == ["shapes"] * 3 + ["shapes_bg"] * 3
    assert frame["image_size"].tolist() == [112, 100, 128] * 2
    failed = frame["error"].notna()
    assert failed.tolist() == [False, True, False] * 2 and frame["run"].isna().equals(failed)
    best = {}
    for row in frame[~failed].itertuples():
        metrics = store.read_metrics(Path("results/runs", row.run))
        for metric in METRICS:
            ends = getattr(row, f"{metric}_low"), getattr(row, f"{metric}_high")
            assert [getattr(row, metric), *ends] == [metrics[metric], *metrics["ci"][metric]]
        assert (row.rule, row.images) == (metrics["rule"], metrics["images"])
        best[row.benchmark] = max(best.get(row.benchmark, 0), metrics["mIoU"])
    assert {row.benchmark for row in frame[frame["best"]].itertuples()} == best.keys()
    assert 0 < frame["best"].sum() < 4  # of the four that did not fail, not all score the same
    for row in frame[frame["best"]].itertuples():
        assert row.mIoU == best[row.benchmark]
    assert not frame["best"][failed].any()
    lines = printed.out.splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.split()[:1] == ["benchmark"])
    assert lines[place].split()[:3] == ["benchmark", "image_size", "mIoU"]
    table = lines[place + 1 : place + 7]
    assert [line.endswith("best") for line in table] == frame["best"].tolist()
    assert ["failed" in line for line in table] == failed.tolist()
    for line, value in zip(table, frame["mIoU"], strict=True):
        assert ("failed" if value != value else f"{value:.2f}") == line.split()[2]
    assert lines[place + 7 :] == [f"wrote {written('csv')}", f"wrote {written('json')}"]


def test_the_same_sweep_writes_the_same_files(words, capsys):
    arguments = ["-m", *words, "method=clip,sclip"]
    first = made(arguments, capsys)
    before = {kind: (written(kind), written(kind).read_bytes()) for kind in ("csv", "json")}
    again = made(arguments, capsys)
    assert {kind: (written(kind), written(kind).read_bytes()) for kind in before} == before
    assert again.out.count("was there already") == 2
    assert again.out.splitlines()[-5:] == first.out.splitlines()[-5:]


def test_a_sweep_of_one_key(words, capsys):
    lines = made(["-m", *words, "method=clip,sclip"], capsys).out.splitlines()[-5:]
    header, *rows = (line.split() for line in lines[:3])
    assert header[:2] == ["method", "mIoU"] and [row[0] for row in rows] == ["clip", "sclip"]
    content = json.loads(written("json").read_text())
    assert [each["overrides"]["method"] for each in content] == ["clip", "sclip"]
    frame = pd.read_csv(written("csv"))
    assert list(frame.columns[:2]) == ["method", "pAcc"] and frame["best"].sum() == 1


def test_a_tie_has_several_best(tmp_path):
    run = tmp_path / "a.run"
    run.mkdir()
    ci = {metric: [0.0, 10.0] for metric in METRICS}
    scores = dict.fromkeys(METRICS, 5.0) | {"ci": ci, "rule": "mmseg", "images": 2}
    (run / "metrics.json").write_text(json.dumps(scores))
    lines = sweep_table.lines_of([["a=1"], ["a=2"]], [run, run])
    assert [line["best"] for line in lines] == [True, True]


def test_runs_elsewhere_have_their_tables_there(words, capsys):
    made(["-m", *words, "method=clip,sclip", "out=mine"], capsys)
    assert sorted(path.name for path in Path().iterdir()) == ["mine"]
    assert len([*Path("mine/sweeps").iterdir()]) == 2
    cli.main(["show", "mine/" + next(Path("mine").glob("shapes.clip.*")).name])


def test_json_of_one_run(words, capsys):
    printed = made([*words, "method=clip", "--json"], capsys)
    (folder,) = Path("results/runs").iterdir()
    told = json.loads(printed.out)
    metrics = store.read_metrics(folder)
    assert told["overrides"]["method"] == "clip" and told["folder"] == str(folder)
    assert {key: told[key] for key in (*METRICS, "ci", "rule", "images")} == {
        key: metrics[key] for key in (*METRICS, "ci", "rule", "images")
    }
    assert not Path("results/sweeps").exists()


def test_json_of_a_sweep(words, capsys):
    arguments = ["--json", "-m", *words, "method.regions.eps=0.5,0"]
    printed = made(arguments, capsys, code=1)
    told = json.loads(printed.out)
    assert told == json.loads(written("json").read_text())
    assert "run" in told[0] and "method.regions.eps=0: must be" in told[1]["error"]
    assert printed.err.endswith("error: runs that failed, see above: 1; the others stand\n")


def test_json_of_what_failed(words, capsys):
    told = json.loads(made([*words, "method.regions.eps=0", "--json"], capsys, code=1).out)
    assert told["error"].startswith("method.regions.eps=0: must be") and "run" not in told
    told = json.loads(made(["-m", *words, "method.regions.eps=0,-1", "--json"], capsys, 1).out)
    assert [each["best"] for each in told] == [False, False] and not Path("results").exists()
    printed = made([*words, "method=nothing", "--json"], capsys, code=1)
    assert not printed.out and "unknown method 'nothing'" in printed.err
    printed = made([*words, "--json", "--cfg", "job"], capsys, code=1)
    assert printed.err == "error: --json: not with options of Hydra; leave those out\n"


def test_nothing_but_json_on_stdout_of_a_program(words):
    """Also what other libraries print, which tests that capture Python's own streams do not see."""
    program = [sys.executable, "-m", "cliptrase.cli", "evaluate", "--json", *words, "method=clip"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["images"] == 2 and "1 run to make" in done.stderr
