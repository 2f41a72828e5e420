"""`cliptrase segment` on bad input: one line that names it and the cure, nothing written."""

import errno
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.faults.refusals import refused_by

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
    (tmp_path / "loop.png").symlink_to("loop.png")
    return tmp_path


refused = partial(refused_by, "segment")


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
        (
            ["--set", "method.attention.within=truth"],
            "method.attention.within=truth: it needs labels",
            "for benchmarks under protocol crop",
        ),
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
        (["--labels", "loop.png"], "loop.png: cannot be written", "choose another place"),
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
        ("loop.png", "levels of symbolic links"),
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
    assert line.startswith("error: strip.png: a picture of 60 × 3 pixels") and "--crop" in line, (
        line
    )


def test_one_file_for_two_pictures_is_ambiguous(folder, capsys):
    line = refused(folder, capsys, ["good.png", "whole.jpg", *GOOD[1:], *LABELS])
    assert "--labels l.png" in line and "{name}" in line


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_disk_that_fills_up_costs_that_file_alone(at, folder, capsys, monkeypatch):
    """Each file is written on its own: one that fails is named, the others are there."""
    names = ["l.png", "o.png", "r.json"]
    for name in names:
        (folder / name).write_text("from before")
    calls = []

    def full(handle, fsync=os.fsync):
        calls.append(handle)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as ended:
        main(["segment", *GOOD, *LABELS])
    printed, lost = capsys.readouterr(), names[at - 1]
    assert ended.value.code == 1
    assert printed.err == f"error: {lost}: no space left on the disk; free some and run again\n"
    assert printed.out == "".join(f"wrote {name}\n" for name in names if name != lost)
    before = [(folder / name).read_bytes() == b"from before" for name in names]
    assert before == [name == lost for name in names]


def test_a_picture_that_fails_costs_no_other(folder, capsys, monkeypatch):
    from cliptrase.errors import UserError
    from cliptrase.segmenter import Segmenter

    def encode(self, image, encode=Segmenter.encode):
        if image.name == "good.png":
            raise UserError("the picture does not fit into the memory of this machine")
        return encode(self, image)

    monkeypatch.setattr(Segmenter, "encode", encode)
    with pytest.raises(SystemExit) as ended:
        main(["segment", "good.png", "whole.jpg", *GOOD[1:], "--labels", "{name}.l.png"])
    assert ended.value.code == 1
    assert capsys.readouterr() == (
        "wrote whole.l.png\n",
        "error: good.png: the picture does not fit into the memory of this machine\n"
        "error: files or pictures that failed, see above: 1; the others stand\n",
    )


@pytest.mark.parametrize(
    ("size", "arguments", "message"),
    [
        ((40, 16_390), ["--overlay", "o.webp", "--crop", "--image-size", "16384"], "o.webp: 16384"),
        ((1_700, 16_370), ["--overlay", "o.webp"], "o.webp: 1700 × 16"),
        ((7_000, 65_490), ["--overlay", "o.jpg"], "o.jpg: 7000 × 65"),
    ],
)
def test_what_a_format_cannot_hold_is_said_before_anything_is_computed(
    size, arguments, message, folder, capsys, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr("cliptrase.data.read.crop.MAX_ASPECT", 1000)
    Image.new("1", size).save("tall.png")
    line = refused(folder, capsys, ["tall.png", *GOOD[1:], "--labels", "l.png", *arguments])
    assert message in line and "at most; write .png" in line, line


def test_more_classes_than_a_label_map_holds(folder, capsys):
    (folder / "many.txt").write_text("".join(f"name {number}\n" for number in range(65_535)))
    words = ["good.png", "--model", "shapes_clip", "--classes-file", "many.txt"]
    line = refused(folder, capsys, [*words, "--background", "sky"])
    assert "65,536 labels, but a label map of 16 bits holds 65,535 at most" in line


BAD = [
    ["absent.jpg"],
    ["good.png", "--labels", "/proc/x.png"],
    ["good.png", "--labels", "x" * 250 + ".png"],
    ["good.png", "--json", "file/r.json"],
    ["good.png", "--model", "local-dir:/absent"],
    ["good.png", "--method", "none"],
    ["good.png", "--templates", "absent.txt"],
    ["good.png", "--set", "method.regions.eps=-1"],
    ["good.png", "--image-size", "100"],
    ["good.png", "--device", "tpu"],
    ["good.png", "--classes", "background", "--background", "sky"],
    ["cut.jpg"],
    ["good.png", "--device", "cuda"],
]


def test_paths_and_options_are_checked_before_torch_is_imported(folder):
    script = (
        "import contextlib, sys\nfrom cliptrase import machine\nfrom cliptrase.cli import main\n"
        "machine.may_have_gpu = lambda: False\n"
        f"for words in {BAD!r}:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main(['segment', '--model', 'shapes_clip', '--classes', 'a,b', *words])\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: ") == done.stderr.count("\n") == len(BAD), done.stderr


def test_file_names_that_are_no_utf8(folder, capsys):
    (folder / "good.png").rename(folder / "caf\udce9.png")
    words = [
        "caf\udce9.png",
        "whole.jpg",
        *GOOD[1:],
        "--labels",
        "o/",
        "--json",
        "{name}\udcff.json",
    ]
    main(["segment", *words])
    assert os.path.exists(b"o/caf\xe9.png") and os.path.exists(b"whole\xff.json")
    printed = capsys.readouterr()
    assert "wrote o/caf\\udce9.png\n" in printed.out and not printed.err
    named = json.loads((folder / "caf\udce9\udcff.json").read_text(encoding="utf-8"))["image"]
    assert os.path.exists(named)
    bad = ["caf\udce9.jpg", *GOOD[1:]]
    assert refused(folder, capsys, bad) == "error: caf\\udce9.jpg: no such file\n"


def test_of_a_link_the_target_is_written(folder):
    (folder / "there").mkdir()
    (folder / "there" / "l.png").write_text("from before")
    (folder / "l.png").symlink_to("there/l.png")
    (folder / "r.json").symlink_to("there/new.json")
    (folder / "o.png").symlink_to("/dev/null")
    main(["segment", *GOOD, *LABELS])
    assert all((folder / name).is_symlink() for name in ("l.png", "r.json", "o.png"))
    assert Image.open(folder / "there" / "l.png").size == (60, 40)
    assert (folder / "there" / "new.json").is_file()
    assert Path("/dev/null").is_char_device()


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
