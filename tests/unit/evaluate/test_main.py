"""The command line of a run and of a sweep, and that of a planned pass."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.objects import changed

from cliptrase import config
from cliptrase.errors import UserError
from cliptrase.evaluate import __main__ as command
from cliptrase.evaluate import passes, planned, sweep
from cliptrase.files import sha256_file
from cliptrase.plan import Pass, Plan
from cliptrase.runs import store


@pytest.fixture
def words(model, data, tmp_path, monkeypatch):
    """Overrides of a run on two scenes with the small model; the current folder is empty."""
    monkeypatch.chdir(tmp_path)
    small = ["model=local", f"model.path={model}", "image_size=112", "limit=2"]
    return [*small, f"data={data}", "out=runs", "device=cpu", "workers=1"]


@pytest.fixture
def suite(runs_of, monkeypatch):
    """A suite of one pass with two runs."""
    runs = runs_of(["method=clip", "limit=2"], ["method=sclip", "limit=2"])
    one = Pass("shapes.local.112.crop", "shapes", "local", 112, "crop", runs)
    small = Plan("small", "Small", False, {one.name: one}, {}, runs)
    monkeypatch.setattr(planned.plan, "load", lambda *_: small)
    return small


def made():
    return sorted(path.name for path in Path("runs").iterdir())


def test_one_run(words, capsys):
    arguments = list(sys.argv)
    command.main([*words, "method=clip"])
    printed, log = capsys.readouterr()
    assert "1 run to make, 0 already there" in log
    (name,) = made()
    metrics = store.read_metrics(f"runs/{name}")
    assert printed.splitlines()[0] == f"runs/{name}  (2 images, rule cliptrase)"
    low, high = metrics["ci"]["mIoU"]
    assert f"  mIoU  {metrics['mIoU']:7.2f}  [{low:.2f}, {high:.2f}]" in printed.splitlines()
    assert [path.name for path in Path().iterdir()] == ["runs"]  # nothing of Hydra's
    assert sys.argv == arguments
    command.main([*words, "method=clip"])
    again = capsys.readouterr()
    assert again.out == printed.replace("rule cliptrase)", "rule cliptrase, was there already)")


def test_a_sweep_goes_on_past_a_failure_and_skips_what_is_done(words, capfd, monkeypatch):
    sweep = ["-m", *words, "method.regions.eps=0.5,0,0.9", "method.regions.min_samples=3"]
    for attempt in range(2):
        with pytest.raises(SystemExit) as ended:
            command.main(sweep)
        assert ended.value.code == 1
        out, err = capfd.readouterr()
        assert [name.rpartition(".limit")[0] for name in made()] == [
            "shapes.cliptrase.local.112.eps-0.5.min_samples-3",
            "shapes.cliptrase.local.112.eps-0.9.min_samples-3",
        ]
        assert out.count("rule cliptrase") == 2
        assert "Traceback" not in err and "method.regions.eps=0: must be a number" in err
        (told,) = (
            line for line in err.splitlines() if "min_samples=3: method.regions.eps=0:" in line
        )
        assert told.startswith("error: model=local ")
        assert err.endswith("error: runs that failed, see above: 1; the others stand\n")
        assert sorted(path.name for path in Path().iterdir()) == ["runs", "sweeps"], attempt
        monkeypatch.setattr(passes, "run_pass", pytest.fail)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "method=clip,sclipp"], "unknown method 'sclipp'; did you mean 'sclip'"),
        (["-m", "method=clip", "eps=0.5,0.7"], "unknown key 'eps'"),
        (["method=clip,sclip"], "method=clip,sclip: several values; add -m"),
        (["image_size=range(112,224,112)"], "several values; add -m"),
        (["vocabulary=my (own) words"], "a value with signs needs quotes"),
        (["method"], "write key=value"),
        (["+method.new=1"], "write key=value"),
    ],
)
def test_what_hydra_would_stumble_over_is_told_first(
    arguments, message, words, capsys, monkeypatch
):
    monkeypatch.setattr(sweep, "make", lambda points: pytest.fail(str(points)))
    with pytest.raises(SystemExit) as ended:
        command.main([*words, *arguments])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert message in printed.err


def test_a_sweep_is_one_pass_of_its_points_that_share_one(words, capsys, monkeypatch):
    passes_made = []

    def made(runs, **options):
        passes_made.append(list(runs))
        return run_pass(runs, **options)

    run_pass = passes.run_pass
    monkeypatch.setattr(passes, "run_pass", made)
    command.main(["-m", *words, "image_size=112,128", "method=clip,sclip"])
    sizes = [[name.split(".")[3] for name in runs] for runs in passes_made]
    assert sizes == [["112", "112"], ["128", "128"]]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("runs/")]
    points = [".".join(line.split(".")[1:4]) for line in printed]
    in_order = ["clip.local.112", "sclip.local.112", "clip.local.128", "sclip.local.128"]
    assert points == in_order


def test_a_point_that_spoils_its_pass_is_reported_alone(words, spoiled_sclip, capsys):
    with pytest.raises(SystemExit):
        command.main(["-m", *words, "method=clip,sclip,clearclip"])
    printed = capsys.readouterr()
    assert [name.split(".")[1] for name in made()] == ["clearclip", "clip"]
    assert printed.out.count("rule cliptrase") == 2
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert errors[0].endswith("method=sclip: sclip is spoiled") and len(errors) == 2


def test_an_error_of_the_stream_is_that_of_every_point(words, capsys, monkeypatch):
    streamed = []

    def unreadable(predictor, *_, **__):
        streamed.append(predictor)
        raise UserError("shapes: image 1 cannot be read")

    monkeypatch.setattr(passes.Predictor, "singly", unreadable)
    with pytest.raises(SystemExit):
        command.main(["-m", *words, "method=clip,sclip,clearclip"])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(streamed) == 1 and len(errors) == 4
    for method, error in zip(("clip", "sclip", "clearclip"), errors, strict=False):
        assert error.endswith(f"method={method}: shapes: image 1 cannot be read")


def test_runs_written_before_the_disk_was_full_have_no_error(words, capsys, monkeypatch):
    write, seen = store.write, []

    def full(out, run, *rest):
        if run.method.name == "sclip":
            raise UserError("no space left on the disk")
        return write(out, run, *rest)

    def opened(*place):
        seen.append(place)
        return open_prepared(*place)

    open_prepared = sweep.open_prepared
    monkeypatch.setattr(store, "write", full)
    monkeypatch.setattr(sweep, "open_prepared", opened)
    with pytest.raises(SystemExit):
        command.main(["-m", *words, "method=clip,sclip,clearclip"])
    printed = capsys.readouterr()
    assert [name.split(".")[1] for name in made()] == ["clip"]
    assert printed.out.count("rule cliptrase") == 1
    assert "runs that failed, see above: 2; the others stand" in printed.err
    assert len(seen) == 1, "the dataset is looked at once"


def points(*overrides):
    return [" ".join(point) for point in sweep.listed(overrides, multirun=True)]


def test_the_points_are_those_of_hydra_s_grammar():
    assert points("method=glob([clipt*,sclip],exclude=*_*)") == [
        "method=cliptrase",
        "method=sclip",
    ]
    assert points("image_size=range(112,225,112)", "limit=3") == [
        "image_size=112 limit=3",
        "image_size=224 limit=3",
    ]
    assert points("limit=1,2", "limit=3") == ["limit=3"], "the last word counts"
    assert points("vocabulary='my (own) words'") == ["vocabulary='my (own) words'"]
    listed = sweep.listed(["method.attention.terms=[qq,kk]"], multirun=False)
    assert listed == [["method.attention.terms=[qq,kk]"]]
    with pytest.raises(UserError, match="an interval has no list of values"):
        points("method.regions.eps=interval(0,1)")


def test_hydra_shows_the_composed_run(words, capsys):
    command.main(["--cfg", "job", *words, "method=sclip"])
    assert "terms:\n    - qq\n    - kk\n" in capsys.readouterr().out


@pytest.mark.parametrize("planned_pass", [False, True])
def test_an_interrupt_says_what_to_do(planned_pass, words, suite, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(passes, "run_pass", interrupted)
    with pytest.raises(SystemExit) as ended:
        if planned_pass:
            planned.main(["small", "shapes.local.112.crop"])
        else:
            command.main(words)
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith("goes on where its counts were saved\n")


def test_a_planned_pass_ends_in_a_file_of_digests(suite, data, tmp_path, capsys, monkeypatch):
    results = tmp_path / "results"
    words = ["small", "shapes.local.112.crop", "--out", str(results), "--data", str(data)]
    words += ["--device", "cpu", "--workers", "1"]
    planned.main(words)
    file = results / "passes" / "small" / "shapes.local.112.crop.json"
    assert capsys.readouterr().out == f"{file}\n"
    digests = {name: sha256_file(results / "runs" / name / "metrics.json") for name in suite.runs}
    assert json.loads(file.read_text()) == digests
    assert [path.name for path in file.parent.iterdir()] == [file.name]

    monkeypatch.setattr(passes, "run_pass", pytest.fail)  # all is there
    content = file.read_bytes()
    file.unlink()
    planned.main(words)
    assert file.read_bytes() == content


def test_runs_on_a_part_that_is_not_there_cost_the_others_nothing(suite, data, tmp_path):
    (name, one), run = *suite.passes.items(), next(iter(suite.runs.values()))
    on_a_part = changed(run, {"benchmark.subset": "half"})
    lost = on_a_part.name
    one.runs[lost] = on_a_part
    with pytest.raises(
        UserError, match=r"1 of the 3 runs of .* left out: .*half\.txt: no such part"
    ):
        planned.make_pass("small", name, tmp_path, data, device="cpu", workers=1)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == one.runs.keys() - {lost}
    assert not list((tmp_path / "passes").rglob("*.json")), "the pass is not whole"


def test_the_help_names_where_the_batch_size_stands(capsys):
    with pytest.raises(SystemExit):
        planned.main(["--help"])
    assert "on a GPU (of conf/evaluate.yaml)" in " ".join(capsys.readouterr().out.split())


def test_a_pass_that_is_not_planned(suite, capsys):
    with pytest.raises(SystemExit):
        planned.main(["small", "shapes.local.224.crop"])
    assert "did you mean 'shapes.local.112.crop'" in capsys.readouterr().err


def test_a_pass_file_is_not_written_when_a_run_fails(suite, tmp_path):
    with pytest.raises(UserError, match="cliptrase prepare shapes"):
        planned.make_pass("small", "shapes.local.112.crop", tmp_path, tmp_path, device="cpu")
    assert not list(tmp_path.rglob("*.json"))


def test_a_gpu_that_is_not_there(runs_of, make, tmp_path):
    with pytest.raises(UserError, match=r"device=cuda:7: .*device=cpu|last GPU here"):
        make(runs_of(["method=clip"]), tmp_path, device="cuda:7")
    assert not list(tmp_path.iterdir())
    assert config.resolve(["device=cuda:7", "model=shapes_clip"]).device == "cuda:7"


def test_places_are_looked_at_before_torch_is_imported(tmp_path):
    commands = [
        ["benchmark=shapes", "data=absent"],
        ["benchmark=shapes", "out=/proc/x"],
        ["benchmark=shapes", "model=local", "model.path=absent"],
        ["-m", "benchmark=shapes", "data=absent,/proc/x"],
    ]
    script = (
        "import contextlib, sys\nfrom cliptrase.evaluate.__main__ import main\n"
        f"for words in {commands}:\n"
        "    with contextlib.suppress(SystemExit): main(words)\n"
        "    assert 'torch' not in sys.modules, words\n"
        "    print('', file=sys.stderr, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.rstrip("\n").split("\n\n")
    assert len(said) == len(commands) and all("error: " in each for each in said), said


def test_a_gpu_that_cannot_be_there_is_refused_before_torch_is_imported(words):
    script = (
        "import contextlib, sys\nfrom cliptrase import machine\n"
        "from cliptrase.evaluate.__main__ import main\nmachine.may_have_gpu = lambda: False\n"
        f"with contextlib.suppress(SystemExit): main({[*words, 'device=cuda']!r})\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    refused = "error: device=cuda: torch sees no GPU here; take device=cpu\n"
    assert (done.returncode, done.stderr) == (0, refused)
