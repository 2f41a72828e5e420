"""`cliptrase segment` on bad input: one line that names it and the cure, nothing written."""

import errno
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cliptrase.cli import main

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: a good photo and one of each kind of bad file."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURE).save("good.png")
    Image.fromarray(PICTURE).save("whole.jpg", quality=95)
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "none.txt").write_text("\n")
    (tmp_path / "twice.txt").write_text("cat\ndog\ncat\n")
    (tmp_path / "line.txt").write_text("sky, sand\n")
    (tmp_path / "back.txt").write_text("sky\ngrass\n")
    (tmp_path / "tab.txt").write_text("a {}.\n0\t{}\n")
    (tmp_path / "long.txt").write_text("word " * 90 + "{}\n")
    (tmp_path / "latin.txt").write_bytes("Bär\n".encode("latin-1"))
    (tmp_path / "file").write_text("a file, no folder")
    return tmp_path


def refused(folder, capsys, arguments, code=1):
    """The one line that `cliptrase segment` ends with; nothing else printed, nothing written."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(["segment", *arguments])
    printed = capsys.readouterr()
    assert ended.value.code == code
    assert not printed.out
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
    assert sorted(folder.rglob("*")) == before
    return printed.err


GOOD = ["good.png", "--model", "shapes_clip", "--classes", "zebra, grass"]
LABELS = ["--labels", "l.png", "--overlay", "o.png", "--json", "r.json"]


@pytest.mark.parametrize(
    ("changes", "names", "cure"),
    [
        (["--method", "cliptrace"], "method 'cliptrace'", "did you mean 'cliptrase'"),
        (["--model", "shape_clip"], "model 'shape_clip'", "did you mean 'shapes_clip'"),
        (["--model", "local"], "model.path", "give model.path="),
        (["--model", "local-dir:."], "open_clip_config.json: no such file", "open_clip folder"),
        (["--templates", "imagenet-80"], "'imagenet-80'", "did you mean 'imagenet80'"),
        (["--set", "method.regions.esp=1"], "method.regions.esp", "eps"),
        (["--set", "method.regions.eps=0"], "method.regions.eps=0", "greater than 0"),
        (["--set", "method.regions.eps=-0.5"], "method.regions.eps=-0.5", "greater than 0"),
        (["--set", "method.regions.eps=wide"], "method.regions.eps=wide", "must be a number"),
        (["--set", "method.regions.min_samples=0"], "method.regions.min_samples=0", "1 or more"),
        (["--set", "method.attention.terms=[qv]"], "'qv'", "There is: kk, qk, qq, vv"),
        (["--set", "method.attention.first_block=2"], "first_block=2", "the blocks 7 to 12"),
        (["--set", "image_size"], "'image_size'", "method"),
        (["--set", "limit=3"], "limit=3", "method"),
        (["--image-size", "230"], "image_size=230", "take 224 or 240"),
        (["--image-size", "-16"], "image_size=-16", "1 or more"),
        (["--device", "tpu"], "device=tpu", "take auto, cpu, cuda"),
        (["--device", "cuda:7"], "device=cuda:7", "cuda"),
        (["--classes", ""], "--classes", "at least one name"),
        (["--classes", " , "], "--classes", "at least one name"),
        (["--classes", "cat,,dog"], "--classes", "entry 2"),
        (["--classes", "cat, dog, Cat"], "'Cat' is named twice (entries 1 and 3)", "once"),
        (
            ["--classes", "cat, dog\nsofa"],
            r"entry 2, 'dog\nsofa', holds '\n'",
            "entries of their own",
        ),
        (["--classes", "cat\tdog"], r"entry 1, 'cat\tdog', holds '\t'", "entries of their own"),
        (["--classes", "cat\ndog\n\nsofa"], "--classes: entry 3 is empty", "write a name there"),
        (["--classes", "cat\ndog\nCat"], "'Cat' is named twice (entries 1 and 3)", "once"),
        (["--classes", "caf\xe9, cafe\u0301"], "named twice (entries 1 and 2), to CLIP's", "once"),
        (["--classes", "cat, caf\udce9"], r"holds '\udce9'", "remove it"),
        (
            ["--background", "sky, Grass"],
            "--background: 'Grass' is the name 'grass' of",
            "remove it",
        ),
        (
            ["--background", "sky\n\tgrass"],
            "--background: 'grass' is the name 'grass'",
            "remove it",
        ),
        (["--background-file", "line.txt"], "line.txt: its only line is 'sky, sand'", "a line"),
        (
            ["--background-file", "back.txt"],
            "back.txt: 'grass' is the name 'grass' of",
            "remove it",
        ),
        (["--classes", "grass, " + "word " * 90], "92 tokens long", "shorten the name"),
        (["--background", "sky, " + "word " * 90], "92 tokens long", "shorten the name"),
        (["--templates", "long.txt"], "3 tokens long, in the prompt 'word", "shorten the name or"),
        (["--templates", "tab.txt"], "tab.txt: line 2, ", "remove it"),
        (["--background", "sky", "--classes", "cat, Background"], "'background'", "another name"),
        (["--model", "auto"], "unknown model 'auto'", "There is: local, local-dir:DIR"),
        (["--background", ""], "--background", "at least one name"),
        (["--background-file", "none.txt"], "none.txt", "one name a line"),
        (["--labels", "l.jpg"], "--labels l.jpg", ".png"),
        (["--labels", "file/l.png"], "file", "stands in the way"),
        (["--labels", "good.png"], "--labels good.png", "another name"),
        (["--json", "/proc/x.json"], "/proc/x.json", "choose another place"),
    ],
)
def test_options(changes, names, cure, folder, capsys):
    line = refused(folder, capsys, [*GOOD, *LABELS, *changes])
    assert names in line and cure in line, line


@pytest.mark.parametrize(
    ("file", "cure"),
    [
        ("none.txt", "one name a line"),
        ("line.txt", "one name a line"),
        ("tab.txt", "remove it"),
        ("twice.txt", "once"),
        ("latin.txt", "UTF-8"),
        ("absent.txt", "no such file"),
        (".", "a folder"),
    ],
)
def test_files_of_classes(file, cure, folder, capsys):
    line = refused(
        folder, capsys, ["good.png", "--model", "shapes_clip", "--classes-file", file, *LABELS]
    )
    assert f"error: {file}: " in line and cure in line, line


@pytest.mark.parametrize(
    ("file", "cure"),
    [
        ("cut.jpg", "truncated or damaged"),
        ("empty.png", "not an image"),
        ("page.jpg", "not an image"),
        ("absent.jpg", "no such file"),
        (".", "a folder"),
    ],
)
def test_a_bad_picture_among_good_ones_stops_before_anything_is_written(file, cure, folder, capsys):
    line = refused(folder, capsys, ["good.png", file, *GOOD[1:], "--labels", "{name}.l.png"])
    assert f"error: {file}: " in line and cure in line, line


def test_a_picture_too_long_stops_before_anything_is_written(folder, capsys):
    Image.fromarray(PICTURE[:3]).save("strip.png")
    arguments = ["good.png", "strip.png", *GOOD[1:], "--labels", "{name}.l.png"]
    line = refused(folder, capsys, arguments)
    assert line.startswith("error: strip.png: 60 × 3 pixels") and "--crop" in line, line


def test_one_file_for_two_pictures_is_ambiguous(folder, capsys):
    line = refused(folder, capsys, ["good.png", "whole.jpg", *GOOD[1:], *LABELS])
    assert "--labels l.png" in line and "{name}" in line


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_disk_that_fills_up_leaves_none_of_the_files(at, folder, capsys, monkeypatch):
    """The file that it fills up at is named; those written before it do not appear either."""
    (folder / "l.png").write_text("from before")
    calls = []

    def full(handle, fsync=os.fsync):
        calls.append(handle)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    line = refused(folder, capsys, [*GOOD, *LABELS])
    assert ["l.png", "o.png", "r.json"][at - 1] in line and "no space left" in line
    assert (folder / "l.png").read_text() == "from before"


def test_without_network_the_default_model_names_the_option(folder):
    """In a process of its own: an empty cache, no hub. And no traceback gets through."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder)}
    command = [sys.executable, "-m", "cliptrase.cli", "segment", "good.png", "--classes", "cat"]
    done = subprocess.run(
        [*command, "--labels", "l.png"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "--model" in done.stderr and "shapes_clip" in done.stderr
    assert not (folder / "l.png").exists()


@pytest.mark.parametrize(
    ("most", "message"),
    [("0", "--max-pixels 0: must be 1"), ("2399", "good.png: too large to be decoded.*2400 pix")],
)
def test_a_limit_of_pixels_is_kept(folder, capsys, monkeypatch, most, message):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99_999_999)  # put back when the test ends
    assert re.search(message, refused(folder, capsys, [*GOOD, "--max-pixels", most]))


def test_a_picture_beyond_pillows_limit_is_segmented(folder, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "--max-pixels" in refused(folder, capsys, GOOD)
    main(["segment", *GOOD, "--max-pixels", "2400"])
    assert not capsys.readouterr().err
