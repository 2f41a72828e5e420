"""`cliptrase repeat`: the same bytes again from a run's folder alone, or why not."""

import json
import shlex
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.provenance import change_provenance

from cliptrase import cli, config, plan
from cliptrase.evaluate import __main__ as command
from cliptrase.evaluate import passes, planned, sweep
from cliptrase.files import sha256_file
from cliptrase.plan import Pass, Plan
from cliptrase.publish.run_report import command_of
from cliptrase.runs.provenance import versions

FILES = ["config.yaml", "confusion.npz", "metrics.json", "per_image.npz"]


@pytest.fixture
def small(model, data, tmp_path, monkeypatch):
    """Overrides of a run on the small model; the current folder, `home`, is new and empty."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    places = [f"data={data}", "device=cpu", "workers=1"]
    return ["model=local", f"model.path={model}", "image_size=112", *places]


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The place of temporary folders, in which nothing may be left."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert list(place.iterdir()) == []


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Go to another working folder."""

    def go():
        place = tmp_path / "elsewhere"
        place.mkdir(exist_ok=True)
        monkeypatch.chdir(place)

    return go


@pytest.fixture
def photos(small):
    """Four pictures and masks of two classes in the current folder, and a list of the two."""
    generator = np.random.default_rng(5)
    for place in ("photos", "masks"):
        Path(place).mkdir()
    for number in range(4):
        picture = generator.integers(0, 256, (130, 150, 3), dtype=np.uint8)
        Image.fromarray(picture).save(f"photos/{number}.png")
        mask = generator.integers(0, 2, (130, 150), dtype=np.uint8)
        Image.fromarray(mask).save(f"masks/{number}.png")
    Path("words.txt").write_text("cat|kitten\ndog, small\n")
    where = ["benchmark.images=photos", "benchmark.labels=masks", "benchmark.classes=words.txt"]
    return ["benchmark=folder", *where, *small]


def made(overrides):
    """The folder of a run made by its command line, absolute."""
    before = {*Path("results/runs").glob("*")}
    command.main(list(overrides))
    (folder,) = {*Path("results/runs").glob("*")} - before
    return folder.absolute()


def contents(folder):
    """File → bytes of everything below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outcome(folder, capsys, *more):
    capsys.readouterr()
    cli.main(["repeat", str(folder), "--device", "cpu", "--json", *more])
    return json.loads(capsys.readouterr().out)


def refused(folder, capsys, *more):
    """The one line of an error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["repeat", str(folder), "--device", "cpu", *more])
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 1 and len(lines) == 1 and "the same bytes" not in out
    return lines[0]


@pytest.mark.parametrize(
    "overrides",
    [
        ["benchmark=shapes", "method=cliptrase", "limit=3"],
        ["benchmark=shapes_bg", "method=clip"],
        ["method=clip", "protocol=slide", "protocol.stride=56", "limit=2", "save_maps=1"],
        [
            "method=cliptrase_unsupervised",
            "method.regions.eps=0.5",
            "method.regions.min_samples=1",
            "method.unsupervised.clusters=30",
        ],
        [
            "method=cliptrase",
            "method.attention.terms=[qq,kk]",
            "method.regions.median=3",
            "limit=2",
        ],
    ],
)
def test_the_same_bytes_from_another_working_folder(overrides, small, elsewhere, capsys):
    folder = made([*overrides, *small])
    before = contents(folder.parents[1])
    elsewhere()
    told = outcome(folder, capsys)
    mean = json.loads((folder / "metrics.json").read_text())["mIoU"]
    assert told["same"] and told["other"] == [] and told["mIoU"] == [mean, mean]
    assert contents(folder.parents[1]) == before and list(Path().iterdir()) == []


def test_it_says_so_in_words(small, capsys):
    folder = made(["method=clip", "limit=2", *small])
    capsys.readouterr()
    cli.main(["repeat", "clip"])
    assert capsys.readouterr().out == f"{folder.name}: the same bytes: {', '.join(FILES)}\n"


@pytest.mark.parametrize("change_to_words", [None, "edited", "deleted"])
def test_a_folder_of_pictures_with_its_own_words(change_to_words, photos, elsewhere, capsys):
    """Paths are relative to where the run was made; words are those that the run's folder holds."""
    folder = made([*photos, "method=clip"])
    if change_to_words == "edited":
        Path("words.txt").write_text("horse\ncow\n")
    if change_to_words == "deleted":
        Path("words.txt").unlink()
    elsewhere()
    assert outcome(folder, capsys)["same"]


def test_other_pictures_are_another_configuration(photos, elsewhere, capsys):
    folder = made([*photos, "method=clip"])
    Image.new("RGB", (150, 130), "red").save("photos/2.png")
    elsewhere()
    line = refused(folder, capsys)
    assert "its command makes another configuration today: benchmark.folder.digest was " in line
    shutil.rmtree(folder.parents[2] / "photos")
    assert "cannot be made again: " in refused(folder, capsys)


@pytest.mark.parametrize("fate", ["edited", "deleted"])
def test_lists_that_the_user_wrote(fate, small, elsewhere, capsys):
    """A vocabulary brings its background words along; a benchmark's lists may have one name."""
    names = config.resolve(["benchmark=shapes_bg"]).vocabulary.classes.path
    lines = Path(names).read_text().splitlines()
    Path("own").mkdir()
    Path("own/mine.txt").write_text("\n".join(["striped horse", *lines[1:]]))
    Path("own/mine_background.txt").write_text("meadow\nwall, brick\n")
    Path("a").mkdir()
    Path("a/list.txt").write_text("\n".join(["old zebra", *lines[1:]]))
    Path("b").mkdir()
    Path("b/list.txt").write_text("nothing\n")
    Path("prompts.txt").write_text("a drawing of {}.\n{}\n")
    shared = ["benchmark=shapes_bg", "method=clip", "limit=2", *small]
    folders = [
        made([*shared, "vocabulary=own/mine.txt"]),
        made([*shared, "benchmark.classes=a/list.txt", "benchmark.background=b/list.txt"]),
        made([*shared, "benchmark.templates=prompts.txt"]),
    ]
    for file in [*Path().glob("*/*.txt"), Path("prompts.txt")]:
        file.write_text("something else {}\n") if fate == "edited" else file.unlink()
    elsewhere()
    for folder in folders:
        assert outcome(folder, capsys)["same"], folder


def test_a_sweep_s_points(small, elsewhere, capsys):
    command.main(["-m", *small, "method=clip", "image_size=112,128", "limit=2"])
    folders = [folder.absolute() for folder in Path("results/runs").iterdir()]
    elsewhere()
    assert [outcome(folder, capsys)["same"] for folder in folders] == [True, True]


def test_other_workers_and_places_do_not_matter(small, elsewhere, capsys, monkeypatch):
    folder = made(["method=cliptrase", "limit=3", "batch_size=7", *small[:-1], "workers=3"])
    elsewhere()
    assert outcome(folder, capsys)["same"]


def test_the_command_that_show_prints(small, capsys):
    """Of a sweep's point, with a value in quotes, run in the folder that it names."""
    words = ["-m", "method=cliptrase", "method.attention.terms=[qq,kk]", "limit=2", *small]
    Path("my words, new.txt").write_text(
        Path(config.resolve([]).vocabulary.classes.path).read_text().replace("zebra", "okapi")
    )
    command.main([*words, 'vocabulary="my words, new.txt"'])
    (folder,) = Path("results/runs").iterdir()
    written = {name: sha256_file(folder / name) for name in FILES}
    typed = command_of(json.loads((folder / "provenance.json").read_text()))
    program, dash, module, *overrides = shlex.split(typed)
    assert (program, dash, module) == ("python", "-m", "cliptrase.evaluate")
    assert not Path(overrides[-1].removeprefix("data=").strip("'")).is_absolute()
    shutil.rmtree(folder)
    command.main(overrides)
    assert {name: sha256_file(folder / name) for name in FILES} == written


@pytest.mark.parametrize("name", ["shapes", "paper", "precision"])
def test_the_command_of_each_run_of_a_suite_names_that_run(name):
    """As the command line reads it, which is not as the plan does. Of runs that differ in their
    benchmark alone, one."""
    written = {tuple(run.overrides[1:]): run for run in plan.load(name, save_maps=3).runs.values()}
    assert all(run.overrides[0].startswith("benchmark=") for run in written.values())
    for run in written.values():
        typed = command_of({"overrides": run.overrides, "data_folder": "/the data, here"})
        (point,) = sweep.listed(shlex.split(typed)[3:], multirun=False)
        again = config.resolve(point)
        assert again.name == run.name and again.data == "/the data, here"


def test_a_run_of_a_suite(runs_of, data, small, elsewhere, capsys, monkeypatch):
    runs = runs_of(["method=clip", "limit=2"], ["method=sclip", "limit=2", "save_maps=1"])
    one = Pass("shapes.local.112.crop", "shapes", "local", 112, "crop", runs)
    suite = Plan("small", "Small", False, {one.name: one}, {}, runs)
    monkeypatch.setattr(planned.plan, "load", lambda *_: suite)
    planned.main(["small", one.name, "--data", str(data), "--device", "cpu"])
    folders = [Path("results/runs", name).absolute() for name in runs]
    elsewhere()
    assert [outcome(folder, capsys)["same"] for folder in folders] == [True, True]


def test_other_bytes_are_an_error_that_says_what_changed(small, capsys):
    folder = made(["method=clip", "limit=2", *small])
    files = {name: sha256_file(folder / name) for name in FILES}
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"mIoU": 99.5}))
    files["metrics.json"] = sha256_file(folder / "metrics.json")
    change_provenance(folder, files=files, code="f" * 64, versions=versions() | {"numpy": "1.0"})
    line = refused(folder, capsys)
    was = f"metrics.json have other bytes; mIoU was 99.5, is {metrics['mIoU']}; "
    assert was in line
    assert f"numpy was 1.0, is {np.__version__}; the prediction code is another" in line
    with pytest.raises(SystemExit):
        cli.main(["repeat", str(folder), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["same"], told["other"]) == (False, ["metrics.json"]) and len(told["changes"]) == 2


def never(*_, **__):
    pytest.fail("the run was started")


def test_what_cannot_be_made_again_is_told_before_it_is_started(
    small, data, capsys, monkeypatch, tmp_path
):
    folder = made(["method=cliptrase", "limit=2", *small])
    monkeypatch.setattr(passes, "run_pass", never)
    before = json.loads((folder / "provenance.json").read_text())
    other = [each for each in before["overrides"] if each != "limit=2"]
    change_provenance(folder, overrides=[*other, "limit=3"])
    assert "another configuration today: limit was 2, is 3" in refused(folder, capsys)
    change_provenance(folder, overrides=[*other, "limit=2", "method.regions.epsilon=1"])
    assert "cannot be made again: unknown key" in refused(folder, capsys)
    change_provenance(folder, **before | {"data": "f" * 64})
    assert f"{data}: holds other data than the run was made from" in refused(folder, capsys)
    del before["overrides"], before["sha256"]
    (folder / "provenance.json").write_text(json.dumps(before))
    assert "made by a version that did not write down its command" in refused(folder, capsys)


def test_a_data_folder_that_moved(small, data, tmp_path, capsys):
    folder = made(["method=clip", "limit=2", *small])
    change_provenance(folder, data_folder=str(tmp_path / "gone"))
    assert "not prepared" in refused(folder, capsys)
    assert outcome(folder, capsys, "--data", str(data))["same"]
