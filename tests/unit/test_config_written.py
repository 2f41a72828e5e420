"""Text keys keep the text that was typed, `~` is the home folder for every path key, and numbers
may stand in quotes: on the command line, in sweeps and in YAML."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from cliptrase import config, plan
from cliptrase.cli import main
from cliptrase.config.pictures import picture_overrides, resolve_settings
from cliptrase.config.written import Written, read, scalar, text_of, unquoted
from cliptrase.data.fetch.sources import read_sources
from cliptrase.errors import UserError, counted
from cliptrase.evaluate import __main__ as command
from cliptrase.evaluate import sweep
from cliptrase.publish.tracking import read_tracking
from cliptrase.resources import resource

TEXTS = [
    *("2024_05_01", "007", "1e3", "1E3", "1.10", "+5", ".5", "5.", "1_000", "0x10", "0b1", "12:30"),
    *("2024-05-01", "yes", "No", "on", "OFF", "true", "True", "nan", "Infinity", "-0", "１２", "3"),
]


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of conf/ that runs and plans read."""
    shutil.copytree(config.files.CONF, tmp_path / "conf")
    monkeypatch.setattr(config.files, "CONF", tmp_path / "conf")
    return tmp_path / "conf"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_key_keeps_its_text(text):
    assert text_of(scalar(text)) == text_of(read(text)) == text
    assert config.resolve([f"out={text}"]).out == text
    for multirun in (False, True):
        (point,) = sweep.listed([f"out={text}"], multirun)
        assert config.resolve(point).out == text
    points = sweep.listed([f"out={text},other"], multirun=True)
    assert [config.resolve(point).out for point in points] == [text, "other"]
    line = sweep.as_hydra_reads(f"out={text},x", multirun=True)
    first, _ = OverridesParser.create().parse_override(line).sweep_string_iterator()
    assert config.resolve([f"out={first}"]).out == text


def test_casts_of_hydra_are_alike_with_and_without_m():
    for multirun in (False, True):
        (point,) = sweep.listed(["out=str(007)", "limit=int(2.5)"], multirun)
        run = config.resolve(point)
        assert (run.out, run.limit) == ("007", 2)


def test_the_same_number_written_twice_is_two_texts():
    points = sweep.listed(["out=sort(1e3,10e2)", "data=choice(1000,1e3)"], multirun=True)
    runs = [config.resolve(point) for point in points]
    assert sorted({run.out for run in runs}) == ["10e2", "1e3"]
    assert sorted({run.data for run in runs}) == ["1000", "1e3"]


@pytest.mark.parametrize(
    "text", ["my photos", r"my\ photos", "'my photos'", "a#b", "résumé", "r\udce9sum"]
)
def test_signs_and_spaces(text):
    for multirun in (False, True):
        (point,) = sweep.listed([f"out={text}"], multirun)
        assert config.resolve(point).out == text.replace("\\", "").strip("'")


def test_yaml_of_benchmarks_methods_suites_and_tables(conf):
    (conf / "benchmark" / "007.yaml").write_text(
        (conf / "benchmark" / "shapes.yaml").read_text().replace("name: shapes", "name: 007")
    )
    (conf / "method" / "1e3.yaml").write_text(
        (conf / "method" / "clip.yaml").read_text().replace("name: clip", "name: 1e3")
    )
    run = config.resolve(["benchmark=007", "method=1e3"])
    assert (run.benchmark.name, run.method.name) == ("007", "1e3")
    assert run.name.startswith("007.1e3.shapes_clip.224.")
    assert sweep.listed(["method=1e3,clip"], multirun=True)[0] == ["method='1e3'"]

    (conf / "table" / "2024_05.yaml").write_text(
        "title: 2024-05-01\nkind: metrics\nrole: main\nmetrics: [mIoU]\nimage_size: '224'\n"
        "average: yes\nversus: 1.10\ngroups: [{name: no, rows: [\n"
        "{row: 1.10, run: [method=1e3]}, {row: 007, run: [method=clip], note: 2e5}]}]\n"
    )
    (conf / "suite" / "1_0.yaml").write_text(
        "title: on\nmodel: shapes_clip\nprotocol: crop\npublished: no\ndata: 2024_05_01\n"
        "roles: {main: [007]}\ntables: [2024_05]\noverrides: ['limit=\"2\"']\n"
    )
    planned = plan.load("1_0")
    (table,) = planned.tables.values()
    assert (planned.title, planned.data, planned.published) == ("on", "2024_05_01", False)
    assert (table.name, table.title) == ("2024_05", "2024-05-01")
    assert [(row.name, row.group, row.note) for row in table.rows] == [
        ("1.10", "no", ""),
        ("007", "no", "2e5"),
    ]
    assert table.rows[1].versus == "1.10"
    assert {run.limit for run in planned.runs.values()} == {2}


def test_yaml_of_tracking_and_of_sources(tmp_path):
    assert read_tracking(None, ["tracking.project=2024_05_01"]).project == "2024_05_01"
    assert read_tracking(None, ["tracking.entity=007"]).entity == "007"
    listed = yaml.safe_load(Path("conf/sources.yaml").read_text())
    archives = dict(list(listed["archives"].items())[:1])
    (name,) = archives
    text = yaml.safe_dump({"archives": archives, "datasets": {}}) + "\n"
    dataset = f"{{archives: {{images: {name}}}, optional: {{}}, count: 1_0, expected: {{}}}}"
    text = text.replace("datasets: {}", f"datasets: {{007: {dataset}}}")
    (tmp_path / "sources.yaml").write_text(text)
    assert {key: each.count for key, each in read_sources(tmp_path).datasets.items()} == {"007": 10}


@pytest.mark.parametrize(
    ("override", "plain"),
    [
        ("method.regions.eps='0.7'", "method.regions.eps=0.7"),
        ('method.regions.eps="7e-1"', "method.regions.eps=0.7"),
        ("method.regions.min_samples='3'", "method.regions.min_samples=3"),
        ("method.regions.min_samples=+3", "method.regions.min_samples=3"),
        ("method.regions.l2_rows='true'", "method.regions.l2_rows=true"),
        ("method.regions.passes='2'", "method.regions.passes=2"),
        ("method.attention.row_sum='1'", "method.attention.row_sum=1"),
        ("method.attention.ffn=False", "method.attention.ffn=false"),
        ("method.attention.last_block='12'", "method.attention.last_block=12"),
        ("benchmark.labels.background=['0']", "benchmark.labels.background=[0]"),
        ("benchmark.labels.ignore='255'", "benchmark.labels.ignore=255"),
        ("protocol.logit_scale='40'", "protocol.logit_scale=40"),
        ("image_size='0336'", "image_size=336"),
        ("limit='4'", "limit=4"),
    ],
)
def test_numbers_and_flags_in_quotes(override, plain):
    given = ["benchmark=shapes_bg"]
    run, same = config.resolve([*given, override]), config.resolve([*given, plain])
    assert run.identity == same.identity and run.text == same.text


@pytest.mark.parametrize("override", ["method.regions.eps='a'", "image_size='336px'", "limit=''"])
def test_a_text_is_still_no_number(override):
    with pytest.raises(UserError, match=r"must be a (whole )?number"):
        config.resolve([override])


def test_a_number_without_its_text_is_that_of_python():
    assert unquoted(Written("1e-3")) == 0.001 and type(unquoted(Written("1e-3"))) is float
    run = config.resolve(["method.regions.eps=1e-1"])
    assert type(run.method.regions.eps) is float and ".eps-0.1." in run.name


def test_the_home_folder_for_every_path_key(home, conf, monkeypatch, tmp_path):
    for folder in ("photos", "masks", "model"):
        (home / folder).mkdir()
    for file in ("words.txt", "prompts.txt"):
        (home / file).write_text("a {}\n")
    assert (config.resolve(["out=~/runs", "data=~"]).out) == f"{home}/runs"
    assert config.resolve(["data=~"]).data == str(home)
    with pytest.raises(UserError, match=f"^{home}/masks: no mask"):
        folders = ["benchmark.images=~/photos", "benchmark.labels=~/masks"]
        config.resolve(["benchmark=folder", *folders, "benchmark.classes=~/words.txt"])
    words = ["benchmark.classes", "benchmark.background", "benchmark.templates", "vocabulary"]
    for key in words:
        with pytest.raises(UserError, match=f"{home}/none.txt|~/none.txt"):
            config.resolve(["benchmark=shapes_bg", f"{key}=~/none.txt"])
    assert config.resolve(["benchmark.templates=~/prompts.txt"]).vocabulary.templates.path == str(
        home / "prompts.txt"
    )
    with pytest.raises(UserError, match=f"^{home}/model/open_clip_config.json"):
        config.resolve(["model=local", "model.path=~/model"])
    with pytest.raises(UserError, match=f"unknown labels.map '{home}/t'|{home}/t"):
        from cliptrase.data.read.labels import read_table

        read_table(config.resolve(["benchmark.labels.map=~/t"]).benchmark.labels.map)
    suite = (conf / "suite" / "smoke.yaml").read_text()
    (conf / "suite" / "smoke.yaml").write_text(f"{suite}data: ~/data\n")
    assert plan.load("smoke").data == f"{home}/data"
    (pair, other) = sweep.listed(["out=~/a,~/b"], multirun=True)
    assert [config.resolve(point).out for point in (pair, other)] == [f"{home}/a", f"{home}/b"]
    assert sweep.as_hydra_reads("out=~/a", multirun=False) == "out='~/a'"
    assert config.resolve(["out=~nobody_at_all/x"]).out == "~nobody_at_all/x"


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "~/x.jpg", "--classes-file=~/words.txt"],
        ["segment", "a.jpg", "--classes=a", "--background-file=~/words.txt"],
        ["tables", "smoke", "--results=~/file/r"],
        ["prepare", "shapes", "--data=~/file/d"],
    ],
)
def test_the_home_folder_for_every_option(arguments, home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (home / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert str(home) in printed.err and not (tmp_path / "~").exists(), printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "https://a.b/c.jpg", "--classes", "a"],
        ["segment", "c.jpg", "--classes-file", "https://a.b/c.jpg"],
        ["verify", "--data", "https://a.b/c.jpg"],
        ["prepare", "shapes", "--data", "https://a.b/c.jpg"],
        ["tables", "smoke", "--results", "https://a.b/c.jpg"],
        ["evaluate", "out=https://a.b/c.jpg"],
        ["evaluate", "model=local", "model.path=https://a.b/c.jpg"],
        ["evaluate", "vocabulary=https://a.b/c.jpg"],
    ],
)
def test_an_address_is_shown_as_it_was_typed(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: https://a.b/c.jpg: ")
    assert not list(tmp_path.iterdir())


def eps(written):
    points = sweep.listed([f"method.regions.eps={written}"], multirun=True)
    return [config.resolve(point).method.regions.eps for point in points]


def test_a_range_of_decimals_has_the_decimals_that_were_meant():
    assert eps("range(0.5,0.9,0.2)") == [0.5, 0.7]
    assert eps("range(0.1,0.4,0.1)") == eps("range(1e-1,.4,0.1)") == [0.1, 0.2, 0.3]
    assert eps("sort(range(0.1,0.4,0.1),reverse=true)") == [0.3, 0.2, 0.1]
    assert eps("range(0.9,0.5,-0.2)") == [0.9, 0.7]
    assert eps("range(1,3)") == [1.0, 2.0]
    hydra = sweep.as_hydra_reads("method.regions.eps=range(0.5,0.9,0.2)", multirun=True)
    assert hydra == "method.regions.eps=0.5,0.7"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.regions.eps=interval(0,1)", "an interval has no list of values to sweep"),
        ("method.regions.eps=tag(a,interval(0,1))", "an interval has no list of values to sweep"),
        ("method.regions.eps=float(interval(0,1))", "an interval has no list of values to sweep"),
        ("image_size=glob(*)", "is for benchmark, method, model, protocol"),
        ("method=glob(x*)", "no value to sweep"),
        ("method.regions.eps=range(1,0)", "no value to sweep"),
        ("method.regions.eps=range(0.1,1,0)", "no value to sweep"),
        ("method.regions.min_samples=range(1,3,0)", "no value to sweep"),
        ("method.regions.eps=range(0,nan,1)", "no value to sweep"),
        ("method.regions.eps=[range(1,3)]", "no value to sweep"),
        ("method.regions.eps=choice()", "a sweep is 0.5,0.7 or"),
        ("method.regions.eps=sort(1,a)", "a sweep is 0.5,0.7 or"),
        ("method.regions.eps=int(a)", "a sweep is 0.5,0.7 or"),
        ("method.regions.eps=of(1)", "a sweep is 0.5,0.7 or"),
        ("+limit=1,2", "write key=value"),
        ("~method", "write key=value"),
        ("limit=range(1,1e9)", "a sweep of more than 10,000 points"),
        ("method.regions.eps=range(0.1,inf)", "a sweep of more than 10,000 points"),
    ],
)
@pytest.mark.parametrize("through_hydra", [[], ["hydra/launcher=basic"]])
def test_a_sweep_that_cannot_be_listed_is_one_message(
    override, message, through_hydra, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        command.main(["-m", "benchmark=shapes", *through_hydra, override])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert not printed.out and not list(tmp_path.iterdir())
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ") and message in line


def test_a_name_has_at_most_128_characters():
    long = ["method.attention.residual=false", "method.regions.denoise=none"]
    long += ["method.regions.cluster=features", "method.regions.l2_rows=true"]
    names = {
        config.resolve(["benchmark=shapes", "vocabulary=coco_stuff171", *long, more]).name
        for more in ("method.regions.eps=0.1", "method.regions.eps=0.2")
    }
    assert len(names) == 2 and {len(name) for name in names} == {128}
    planned = {name for suite in ("paper", "shapes") for name in plan.load(suite).runs}
    assert max(map(len, planned)) == 128


def test_a_name_in_other_letters_fits_into_a_folder(conf):
    name = "字" * 80
    for group, file in (("benchmark", "shapes"), ("method", "clip")):
        text = (conf / group / f"{file}.yaml").read_text()
        (conf / group / f"{name}.yaml").write_text(text.replace(f"name: {file}", f"name: {name}"))
    run = config.resolve([f"benchmark={name}", f"method={name}"]).name
    assert len(run.encode()) <= 231 and run.startswith(name[:70]) and "\ufffd" not in run


def test_a_file_s_name_need_not_be_text(tmp_path):
    words = tmp_path / os.fsdecode(b"w\xff.txt")
    words.write_text("".join(f"name {index}\n" for index in range(30)))
    run = config.resolve(["benchmark=shapes", f"vocabulary={words}"])
    assert r".vocabulary-w\udcff." in run.name and yaml.safe_load(run.text) == run.identity
    folder = tmp_path / os.fsdecode('m😀"é\\'.encode() + b"\xff")
    shutil.copytree(resource("assets", "shapes_clip"), folder)
    for model in (folder, f"local-dir:{folder}"):
        settings = resolve_settings(picture_overrides(model, "clip", "cpu", None, []))
        assert settings.model.path == str(folder)


def test_counts_have_their_plural():
    texts = [counted(n, thing) for n in (0, 1, 2) for thing in ("run", "pass")]
    assert texts == ["0 runs", "0 passes", "1 run", "1 pass", "2 runs", "2 passes"]


@pytest.mark.parametrize(
    ("file", "message"),
    [("folder", "'benchmark.colors'; did you mean 'colours'"), ("shapes", "'benchmark.colors'; ")],
)
def test_an_unknown_key_of_a_benchmarks_file_names_the_keys_to_write(conf, file, message):
    text = (conf / "benchmark" / f"{file}.yaml").read_text()
    (conf / "benchmark" / "mine.yaml").write_text(
        text.replace(f"name: {file}", "name: mine").replace("???", "x") + "colors: x\n"
    )
    with pytest.raises(UserError, match=message) as caught:
        config.resolve(["benchmark=mine"])
    assert "folder" not in str(caught.value)
