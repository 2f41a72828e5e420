"""A sweep by Hydra's launchers: a pass is a job of it, and the sweep ends as any other."""

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from cliptrase.evaluate import __main__ as command
from cliptrase.evaluate import launched, passes

SUBMITIT = importlib.util.find_spec("submitit") is not None
needs_submitit = pytest.mark.skipif(not SUBMITIT, reason="`make cluster` installs submitit")


@pytest.fixture
def words(model, data, tmp_path, monkeypatch):
    """Overrides of a run on two scenes with the small model; the current folder is empty."""
    monkeypatch.chdir(tmp_path)
    small = ["model=local", f"model.path={model}", "limit=2", f"data={data}"]
    return [*small, "out=results/runs", "device=cpu", "workers=1"]


def test_points_that_share_a_pass_are_one_job(words, capsys, monkeypatch):
    made, run_pass = [], passes.run_pass
    monkeypatch.setattr(
        passes, "run_pass", lambda runs, **more: made.append([*runs]) or run_pass(runs, **more)
    )
    command.main([*words, "image_size=112", "method=clip"])
    sweep = ["-m", "hydra/launcher=basic", *words, "image_size=112,128", "method=clip,sclip"]
    command.main([*sweep, "--json"])
    printed, log = capsys.readouterr()
    assert [[name.split(".")[1:4:2] for name in runs] for runs in made[1:]] == [
        [["sclip", "112"]],
        [["clip", "128"], ["sclip", "128"]],
    ]
    assert "2 passes, each a job of basic\n" in log
    lines = json.loads(printed[printed.index("[\n") :])
    assert [line["run"].split(".")[1:4:2] for line in lines] == [
        [method, size] for size in ("112", "128") for method in ("clip", "sclip")
    ]
    assert sorted(path.name for path in Path("results").iterdir()) == ["runs", "sweeps"]

    command.main(sweep)
    printed, log = capsys.readouterr()
    assert "job" not in log and printed.count("was there already") == 4 and len(made) == 3


def test_a_point_that_fails_says_why_and_the_others_stand(words, spoiled_sclip, capsys):
    arguments = ["-m", "hydra/launcher=basic", *words, "image_size=112", "method=clip,sclip,none"]
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 1 and "unknown method 'none'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        command.main([*arguments[:-1], "method=clip,sclip"])
    assert ended.value.code == 1
    printed, log = capsys.readouterr()
    assert log.count("sclip is spoiled") == 1 and "runs that failed, see above: 1" in log
    assert printed.count("rule cliptrase") == 1


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ("hydra/launcher=basics", "Could not find 'hydra/launcher/basics' Available options"),
        ("hydra.launcher.cores=2", "Could not override 'hydra.launcher.cores'"),
    ],
)
def test_a_launcher_that_cannot_start_is_one_message(launcher, message, words, capsys):
    arguments = ["-m", "hydra/launcher=basic", launcher, *words, "image_size=112", "method=clip"]
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 1
    printed, log = capsys.readouterr()
    *_, line = log.splitlines()
    assert not printed and line.startswith("error: hydra/launcher=basic") and message in line
    assert log.count("error") == 1 and not any(Path("results/runs").iterdir())


def test_a_launcher_that_fails_at_the_first_killed_job_leaves_what_was_made(
    words, capsys, monkeypatch
):
    """As submitit's does, while others may run: a start then would make their points twice."""
    target = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    store = ConfigStore.instance()
    launcher = Plugins.instance().class_name_to_class[target]
    launch = launcher.launch

    def killed(self, jobs, initial_job_idx):
        launch(self, jobs[:1], initial_job_idx)
        raise RuntimeError("job 7 ran\nout of time")

    monkeypatch.setattr(launcher, "launch", killed)
    monkeypatch.setattr(store, "repo", copy.deepcopy(store.repo))
    store.store("impatient", {"_target_": target}, group="hydra/launcher")
    sweep = ["-m", "hydra/launcher=impatient", *words, "image_size=112,128", "method=clip"]
    with pytest.raises(SystemExit) as ended:
        command.main(sweep)
    printed, log = capsys.readouterr()
    assert ended.value.code == 1 and printed.count("rule cliptrase") == 1
    (line,) = (line for line in log.splitlines() if "job 7 ran out of time; its other jobs" in line)
    assert "image_size=128" in line and "squeue --me" in line

    monkeypatch.setattr(launcher, "launch", launch)
    command.main(sweep)
    printed, log = capsys.readouterr()
    assert "1 pass, each a job" in log and printed.count("was there already") == 1


def test_a_launcher_that_is_not_installed_is_one_message(words, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setattr(launched, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        command.main(["-m", "hydra/launcher=submitit_slurm", *words, "image_size=112"])
    said = "error: hydra/launcher=submitit_slurm: not installed; pip install 'cliptrase[cluster]'\n"
    assert capsys.readouterr().err == said


@pytest.mark.cluster
@needs_submitit
def test_submitit_makes_a_job_of_each_pass(words):
    """In processes of this machine, started as those of SLURM are."""
    sweep = ["-m", "hydra/launcher=submitit_local", *words, "image_size=112,128"]
    done = subprocess.run(
        [sys.executable, "-m", "cliptrase.evaluate", *sweep, "method=clip,sclip", "limit=1,x"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "limit=x" in done.stderr, done.stderr
    assert done.stdout.count("rule cliptrase") == 4
    jobs = [path for path in Path("results/logs/sweeps").glob("*/*_log.err")]
    assert len(jobs) == 2
    assert all("2 runs to make, 0 already there" in path.read_text() for path in jobs)
