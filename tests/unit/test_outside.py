"""Methods in files, folders and packages that are not of this repository."""

import json
from pathlib import Path

import pytest
import torch

from cliptrase import config, plan
from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.model.load import load_clip

PLAIN = '''
from cliptrase.model import vision


def attention(original, blocks, attention):
    """CLIP's own attention, written out."""
    tokens = original.entering(blocks.start)
    for index in blocks:
        parts = vision.qkv(original.clip, index, tokens)
        scores = parts.q @ parts.k.transpose(2, 3) * parts.q.shape[3] ** -0.5
        mixed = (scores.softmax(dim=3) @ parts.v).transpose(1, 2).flatten(2)
        tokens = vision.finish(original.clip, index, tokens, mixed)
    return tokens
'''
YAML = """# Plain, from block {first} on.
name: {name}
file: ../../plain.py
attention:
  {{kind: file, terms: [], first_block: {first}, last_block: 12, residual: true, ffn: true}}
regions: null
cls_logits: false
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plain.py"
    path.write_text(PLAIN)
    return path


@pytest.fixture
def folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like conf/ with the method `mine`, whose code lies beside it."""
    path = file.parent / "conf"
    (path / "method").mkdir(parents=True)
    (path / "method" / "mine.yaml").write_text(YAML.format(name="mine", first=11))
    monkeypatch.setenv(config.files.OWN, str(path))
    return path


def resolved(file: Path, *more: str) -> config.Run:
    return config.resolve(["method=outside", f"method.file={file}", *more])


def test_a_function_of_a_file_computes_the_attention(file: Path) -> None:
    run, clip = resolved(file), load_clip(config.resolve([]).model)
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        graph = Graph(clip, pixels)
        plain = graph.patches(config.resolve(["method=clip"]).method)
        torch.testing.assert_close(graph.patches(run.method), plain, atol=1e-5, rtol=0)


def test_the_run_is_named_after_the_file_and_known_by_its_code(file: Path) -> None:
    run = resolved(file)
    assert run.name.startswith("shapes.plain.shapes_clip.224.") and run.name.count(".") == 4
    file.write_text("# a comment\n" + PLAIN.replace("CLIP's own", "The usual"))
    assert resolved(file).name == run.name
    moved = file.with_name("elsewhere") / "plain.py"
    moved.parent.mkdir()
    moved.write_text(PLAIN)
    assert resolved(moved).identity == run.identity
    file.write_text(PLAIN.replace("softmax(dim=3)", "softmax(dim=2)"))
    assert resolved(file).name != run.name


def test_runs_without_a_file_have_their_old_identity() -> None:
    assert not {"file", "code"} & set(config.resolve([]).identity["method"]["attention"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\n", r"has no function attention\(original, blocks, attention\)"),
        ("def attention(original):\n    pass\n", r"must take \(original, blocks, attention\)"),
        ("def attention(:\n", "is not Python"),
        (None, "no such file"),
    ],
)
def test_a_file_without_the_function_is_refused_before_it_runs(
    file: Path, code: str | None, message: str
) -> None:
    file.unlink() if code is None else file.write_text(code)
    with pytest.raises(UserError, match=message):
        resolved(file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("parts.q @", "parts.queries @", r"plain.py, line 10: attention failed: AttributeError"),
        ("from cliptrase.model import", "from nowhere import", "line 2: its import failed"),
        ("return tokens", "tokens = tokens", "attention returned NoneType; it must return tokens"),
        ("return tokens", "return tokens[:, 1:]", "returned .* values; it must"),
    ],
)
def test_a_function_that_fails_is_told_with_its_line(
    file: Path, old: str, new: str, message: str
) -> None:
    file.write_text(PLAIN.replace(old, new))
    run = resolved(file)
    with torch.inference_mode(), pytest.raises(UserError, match=message):
        Graph(load_clip(run.model), torch.zeros(1, 3, 64, 64)).patches(run.method)


def test_a_file_cannot_take_the_name_of_a_method(tmp_path: Path) -> None:
    (tmp_path / "gem.py").write_text(PLAIN)
    with pytest.raises(UserError, match="there is a method gem; rename the file"):
        resolved(tmp_path / "gem.py")


@pytest.mark.parametrize("override", ["method.attention.kind=file", "method.file=plain.py"])
def test_the_kind_and_the_file_go_together(override: str) -> None:
    with pytest.raises(UserError, match=r"go together|unknown key 'method.file'"):
        config.resolve(["method=clip", override])


def test_a_folder_like_conf_adds_methods_suites_and_tables(folder: Path) -> None:
    run = config.resolve(["method=mine"])
    assert run.method.attention.first_block == 11 and "mine" in config.names("method")
    assert run.name.startswith("shapes.mine.shapes_clip.224.") and run.name.count(".") == 4
    for group, text in {
        "suite": "title: Own\nmodel: shapes_clip\nprotocol: crop\npublished: false\n"
        "roles: {main: [shapes]}\ntables: [own_table]\noverrides: [limit=2]\n",
        "table": "title: Own\nkind: metrics\nrole: main\nmetrics: [mIoU]\nimage_size: 224\n"
        "groups: [{name: own, rows: [{row: Mine, run: [method=mine]}]}]\n",
    }.items():
        (folder / group).mkdir()
        (folder / group / f"own_{group}.yaml").write_text(text)
    assert "own_suite" in plan.suites()
    (planned,) = plan.load("own_suite").runs.values()
    assert planned.method == run.method


def test_a_name_of_two_folders_is_refused(folder: Path) -> None:
    (folder / "method" / "clip.yaml").write_text(YAML.format(name="clip", first=12))
    with pytest.raises(UserError, match=r"clip.yaml has this name; choose another one"):
        config.resolve(["method=clip"])


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_a_folder_that_is_none_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--conf-dir {place}: must be a folder with a folder"):
        config.files.taken_from(["--conf-dir", place])


def test_a_package_offers_its_method_by_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is found, and not imported."""
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "inside.py").write_text(PLAIN)
    about = tmp_path / "own_package-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1\n")
    points = "[cliptrase.methods]\nfrom_package = own_package.inside:attention\n"
    (about / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    config.outside._installed.cache_clear()
    try:
        run = config.resolve(["method=from_package"])
        assert run.name.startswith("shapes.from_package.")
        assert run.method.attention.file == f"{package / 'inside.py'}:attention"
        assert "from_package" in config.names("method")
    finally:
        config.outside._installed.cache_clear()


def test_the_folder_of_a_run_names_the_folders_that_it_needs(folder: Path) -> None:
    from cliptrase.runs.provenance import origin

    made = json.loads(json.dumps(origin(config.resolve(["method=mine"]), Path("data"))))
    assert made["conf_folders"] == [str(folder)] and made["overrides"] == ["method=mine"]
