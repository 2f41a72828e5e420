"""Prepared datasets: whole or absent, the scenes they should be, readable by many threads."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from cliptrase import config
from cliptrase.data import open_dataset
from cliptrase.data.make import prepare, recipes
from cliptrase.data.make.records import Record, png
from cliptrase.data.read import prepared
from cliptrase.data.read.prepared import open_prepared, verify_prepared
from cliptrase.data.read.selfcheck import read_selfcheck, write_selfcheck
from cliptrase.errors import UserError
from cliptrase.runs import code
from cliptrase.shapes import scenes

COUNT = 6


def records(dataset: str, count: int) -> Iterator[Record]:
    rng = np.random.default_rng(len(dataset))
    for index in range(count):
        image = rng.integers(0, 256, (20, 30 + index, 3), dtype=np.uint8)
        label = rng.integers(0, 60, (20, 30 + index), dtype=np.uint8)
        yield Record(f"scene_{index:03d}", png(image), png(label))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe of six small pictures in the place of the embedded benchmark."""
    code = (Path(prepare.__file__),)
    small = recipes.Recipe(COUNT, lambda: records("small", COUNT), code)
    monkeypatch.setattr(recipes, "recipe", lambda *_: small)


def test_the_embedded_benchmark_is_stored_to_the_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recipes.recipe("shapes").count == recipes.recipe("shapes_clean").count == 200
    monkeypatch.setattr(scenes, "TEST_SEEDS", scenes.TEST_SEEDS[:12])
    folder = prepare.prepare("shapes", tmp_path)
    samples = open_prepared("shapes", tmp_path)
    assert folder == tmp_path / "prepared" / "shapes" and len(samples) == 12
    for index in (0, 7, 11):
        scene = scenes.evaluation_scene("shapes", index)
        assert np.array_equal(np.asarray(samples[index].image), scene.image)
        assert np.array_equal(samples[index].label, scene.label)
    assert samples.ids[:2] == ["scene_000", "scene_001"]
    check = verify_prepared("shapes", tmp_path)
    assert check["count"] == 12
    assert sum(check["label_pixels"].values()) == 12 * 224 * 224
    run = config.resolve(["benchmark=shapes", f"data={tmp_path}", "limit=3"])
    assert [sample.id for sample in open_dataset(run)] == samples.ids[:3]


def test_scenes_are_of_the_code_that_draws_them_and_not_of_the_clip_that_is_trained_on_them():
    drawing = code.closure("data.make.records", "shapes.scenes")
    files = set(recipes.code_files("shapes"))
    assert {file for file in drawing if file.parent.name == "shapes"} < files <= drawing
    assert files == set(recipes.code_files("shapes_clean"))


def test_hugging_face_opens_it_too(small: None, tmp_path: Path) -> None:
    folder = prepare.prepare("small", tmp_path)
    table = Dataset.from_file(str(folder / "samples.arrow"))
    assert table.column_names == ["id", "image", "label"] and len(table) == COUNT
    assert table[0]["image"].startswith(b"\x89PNG")


def test_the_places_of_rows_are_found_in_any_arrow_file_of_theirs(tmp_path: Path) -> None:
    """Also where Hugging Face saves a selection of rows: other batches, offsets not from zero."""
    prepared.write_arrow(tmp_path / "samples.arrow", records("small", 40))
    table = Dataset.from_file(str(tmp_path / "samples.arrow"))
    table.select(range(13, 37)).save_to_disk(str(tmp_path / "part"))
    (saved,) = (tmp_path / "part").glob("*.arrow")
    saved.rename(tmp_path / "part" / "samples.arrow")
    samples = prepared.PreparedSamples(tmp_path / "part")
    assert samples.ids == [f"scene_{index:03d}" for index in range(13, 37)]
    assert np.array_equal(samples[5].label, prepared.PreparedSamples(tmp_path)[18].label)
    wrong = table.remove_columns("image").add_column("image", ["text"] * 40)
    wrong.save_to_disk(str(tmp_path / "wrong"))
    (saved,) = (tmp_path / "wrong").glob("*.arrow")
    saved.rename(tmp_path / "wrong" / "samples.arrow")
    with pytest.raises(UserError, match="column image is not one of files' bytes"):
        prepared.PreparedSamples(tmp_path / "wrong")


def test_reading_many_rows_takes_no_memory(tmp_path: Path) -> None:
    """A file of 120 MB is read in a process of its own that never grows by a quarter of it."""
    row = next(records("small", 1))
    big = (Record(f"{i:05d}", row.image + bytes(1_000_000), row.label) for i in range(120))
    prepared.write_arrow(tmp_path / "samples.arrow", big)
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from cliptrase.data.read.prepared import PreparedSamples\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "samples = PreparedSamples(Path(sys.argv[1]))\n"
        "samples[0]; before = peak()\n"
        "assert sum(1 for sample in samples) == 120\n"
        "assert peak() - before < 30, (before, peak())\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_making_it_again_gives_the_same_bytes(small: None, tmp_path: Path) -> None:
    first = prepare.prepare("small", tmp_path / "one")
    second = prepare.prepare("small", tmp_path / "two")
    for name in ("samples.arrow", "selfcheck.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_whole_dataset_is_left_alone_and_other_code_makes_it_again(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrow = prepare.prepare("small", tmp_path) / "samples.arrow"
    made = arrow.stat().st_mtime_ns
    prepare.prepare("small", tmp_path)
    assert arrow.stat().st_mtime_ns == made
    prepare.prepare("small", tmp_path, force=True)
    assert arrow.stat().st_mtime_ns != made
    made = arrow.stat().st_mtime_ns
    other = recipes.Recipe(COUNT, lambda: records("other", COUNT), (Path(__file__),))
    monkeypatch.setattr(recipes, "recipe", lambda *_: other)
    for opened in (open_prepared, verify_prepared):
        with pytest.raises(UserError, match=r"made by another version of .* it; run `cliptrase"):
            opened("small", tmp_path)
    assert len(open_prepared("small", tmp_path, any_code=True)) == COUNT
    prepare.prepare("small", tmp_path)
    assert arrow.stat().st_mtime_ns != made
    assert len(open_prepared("small", tmp_path)) == COUNT


def test_an_id_that_was_changed_is_noticed_and_the_dataset_made_again(
    small: None, tmp_path: Path
) -> None:
    arrow = prepare.prepare("small", tmp_path) / "samples.arrow"
    content = arrow.read_bytes()
    arrow.write_bytes(content.replace(b"scene_003", b"scene_0O3"))
    for opened in (open_prepared, verify_prepared):
        with pytest.raises(UserError, match=r"ids in .*arrow are not those .* run `cliptrase prep"):
            opened("small", tmp_path)
    prepare.prepare("small", tmp_path)
    assert arrow.read_bytes() == content


@pytest.mark.parametrize("name", ["samples.arrow", "sums.npy"])
def test_a_bit_turned_over_anywhere_changes_no_sample_and_ends_in_no_crash(
    small: None, tmp_path: Path, name: str
) -> None:
    """pyarrow reads where the file tells it to, also outside of the file."""

    def content() -> list[tuple[str, bytes, bytes]]:
        samples = open_prepared("small", tmp_path, any_code=True)
        return [(one.id, one.image.tobytes(), one.label.tobytes()) for one in samples]

    path = prepare.prepare("small", tmp_path) / name
    before, good = path.read_bytes(), content()
    for bit in np.random.default_rng(0).integers(0, 8 * len(before), 300).tolist():
        spoilt = bytearray(before)
        spoilt[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoilt)
        try:
            assert content() == good, bit
        except UserError as error:
            assert "run `cliptrase prepare small" in str(error)


def test_a_whole_dataset_is_left_alone_where_nothing_can_be_written(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare.prepare("small", tmp_path)
    (tmp_path / "prepared/.small.lock").unlink()

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refused)
    monkeypatch.setattr("cliptrase.data.fetch.download.FileLock.acquire", refused)
    assert prepare.prepare("small", tmp_path) == folder
    with pytest.raises(UserError, match="check the folder's permissions"):
        prepare.prepare("small", tmp_path, force=True)


def test_threads_read_what_one_reader_reads(small: None, tmp_path: Path) -> None:
    prepare.prepare("small", tmp_path)
    samples = open_prepared("small", tmp_path)
    alone = [np.asarray(sample.image) for sample in samples]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda index: samples[index % COUNT], range(40 * COUNT)))
    for index, sample in enumerate(together):
        assert sample.id == samples.ids[index % COUNT]
        assert np.array_equal(np.asarray(sample.image), alone[index % COUNT])


def test_killed_in_the_middle_leaves_nothing_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    code = (
        "import sys, time, numpy\n"
        "from pathlib import Path\n"
        "from cliptrase.data.make import prepare, recipes, records\n"
        "def slow():\n"
        "    picture = records.png(numpy.zeros((9, 9, 3), numpy.uint8))\n"
        "    yield records.Record('a', picture, picture)\n"
        "    Path(sys.argv[1], 'started').touch()\n"
        "    time.sleep(60)\n"
        "recipes.recipe = lambda *_: recipes.Recipe(6, slow, ())\n"
        "prepare.prepare('small', sys.argv[1])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    for _ in range(600):
        if (tmp_path / "started").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    home = tmp_path / "prepared"
    assert list(home.glob(".small.[0-9]*")), "it was killed before it began to write"
    with pytest.raises(UserError, match="not prepared; run `cliptrase prepare small"):
        open_prepared("small", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        recipe = recipes.Recipe(COUNT, lambda: records("small", COUNT), ())
        patch.setattr(recipes, "recipe", lambda *_: recipe)
        prepare.prepare("small", tmp_path)
        assert len(open_prepared("small", tmp_path)) == COUNT
    assert sorted(path.name for path in home.iterdir()) == [".small.lock", "small"]


def test_a_failure_keeps_what_was_there(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare.prepare("small", tmp_path)
    before = (folder / "samples.arrow").read_bytes()

    def full(path: Path, records: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(prepared, "write_arrow", full)
    with pytest.raises(UserError, match=r"prepared/small: no space left on the disk"):
        prepare.prepare("small", tmp_path, force=True)
    assert (folder / "samples.arrow").read_bytes() == before
    assert sorted(path.name for path in folder.parent.iterdir()) == [".small.lock", "small"]


def cut(folder: Path) -> None:
    content = (folder / "samples.arrow").read_bytes()
    (folder / "samples.arrow").write_bytes(content[: len(content) // 2])


def cut_with_its_check(folder: Path) -> None:
    cut(folder)
    change(folder, arrow_bytes=(folder / "samples.arrow").stat().st_size)


def change(folder: Path, **entries: object) -> None:
    write_selfcheck(folder, {**(read_selfcheck(folder) or {}), **entries})


def turned(folder: Path) -> None:
    """Another digit in the digest of the pixels, of a self-check that says the same else."""
    path = folder / "selfcheck.json"
    check = json.loads(path.read_text())
    digest = check["pixels_sha256"]
    path.write_text(path.read_text().replace(digest, "f1"[digest[0] == "f"] + digest[1:]))
    assert json.loads(path.read_text()).keys() == check.keys()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "selfcheck.json").unlink(), "not prepared"),
        (lambda folder: (folder / "selfcheck.json").write_text("{"), "not prepared"),
        (turned, "not prepared"),
        (lambda folder: (folder / "samples.arrow").unlink(), "absent or cut off"),
        (cut, "absent or cut off"),
        (cut_with_its_check, "the Arrow file is damaged|samples, not 6"),
        (lambda folder: change(folder, count=7), "6 samples, not 7"),
        (lambda folder: change(folder, pixels_sha256="0"), "has changed: pixels_sha256"),
    ],
)
def test_a_damaged_dataset_is_named_with_its_cure(
    damage: object, message: str, small: None, tmp_path: Path
) -> None:
    folder = prepare.prepare("small", tmp_path)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as error:
        verify_prepared("small", tmp_path)
    assert f"run `cliptrase prepare small --data {tmp_path}`" in str(error.value)


@pytest.mark.parametrize("column", ["image", "label"])
def test_one_changed_byte_of_a_sample_is_noticed_when_it_is_read(
    column: str, small: None, tmp_path: Path
) -> None:
    """Whatever the decoder would make of it: a photograph decodes with many a wrong byte."""
    folder = prepare.prepare("small", tmp_path)
    arrow = folder / "samples.arrow"
    stored = getattr(list(records("small", 6))[2], column)
    content = bytearray(arrow.read_bytes())
    content[content.index(stored) + len(stored) - 20] ^= 1
    arrow.write_bytes(content)
    samples = open_prepared("small", tmp_path)
    assert samples[1].id == samples.ids[1]
    cure = f"run `cliptrase prepare small --data {tmp_path} --force`"
    with pytest.raises(UserError, match=f"{samples.ids[2]} is not what was prepared") as error:
        samples[2]
    assert cure in str(error.value)
    (folder / "sums.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"sums\.npy is absent or damaged"):
        open_prepared("small", tmp_path)
    prepare.prepare("small", tmp_path, force=True)
    assert open_prepared("small", tmp_path)[2].id == samples.ids[2]


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (lambda good: [good[1], good[0]], "ids of a dataset must be sorted"),
        (lambda good: [good[0], good[0]], "each there once"),
        (lambda good: [Record("a", good[0].image, good[1].label)], "image of .* label of"),
        (lambda good: [Record("a", good[0].image, good[0].image)], "a: a mask must hold one label"),
        (lambda good: [Record("a", b"<html>", good[0].label)], "a: not an image"),
        (lambda good: good[:1], "1 sample instead of 6"),
    ],
)
def test_records_that_cannot_be_scored_are_refused_when_prepared(
    faulty: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = faulty(list(records("small", 2)))  # type: ignore[operator]
    monkeypatch.setattr(recipes, "recipe", lambda *_: recipes.Recipe(6, lambda: iter(wrong), ()))
    with pytest.raises(UserError, match=message):
        prepare.prepare("small", tmp_path)
    assert not (tmp_path / "prepared" / "small").exists()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["ade2021"], r"ade2021: .*https://ade20k\S*: .*put the file ADE20K_2021_17_01.zip into"),
        (["shape"], "unknown dataset 'shape'; did you mean 'shapes'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            prepare.main([*arguments, "--data", str(tmp_path)])
        assert stopped.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert re.search(message, error)
    assert not list(tmp_path.glob("prepared/[a-z]*"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc here")
def test_a_place_where_no_folder_can_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        prepare.main(["shapes", "--data", "/proc/x"])
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and error.count("\n") == 1
    assert error.startswith("error: /proc/x/prepared/shapes: "), error


def test_the_command_line_makes_it(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare.main(["small", "--data", str(tmp_path)])
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path}/prepared/small: 6 samples\n"
    assert captured.err == "", "no progress bar without a terminal"
