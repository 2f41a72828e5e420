"""`cliptrase evaluate` on a user's folder with something wrong: one line, no run, no number."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptrase.cli import main

SIZE = (48, 64)
CLASSES = ["zebra", "grass", "water"]


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8))


def mask(seed):
    labels = np.random.default_rng(seed).integers(0, 3, SIZE, dtype=np.uint8)
    labels[:4] = 255
    return labels


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with three pictures, their masks and the classes: nothing is wrong."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir(), (tmp_path / "labels").mkdir()
    for index, name in enumerate(["a", "b", "c"]):
        picture(index).save(f"images/{name}.jpg", quality=95)
        Image.fromarray(mask(index)).save(f"labels/{name}.png")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    return tmp_path


GOOD = [
    "evaluate",
    "benchmark=folder",
    "benchmark.images=images",
    "benchmark.labels=labels",
    "benchmark.classes=classes.txt",
    "benchmark.templates=shapes",
    "model=shapes_clip",
    "device=cpu",
]


def refused(capsys, arguments):
    """The one line that the command ends with; progress may stand before it. No file is written
    into results/, no number is printed."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert not printed.out
    assert not files_below("results")
    return the_error(printed.err)


def the_error(text):
    """The last line, which alone says what is wrong: no traceback, no word of Hydra's."""
    *progress, error = text.strip().splitlines()
    assert error.startswith("error: "), text
    assert not any(word in line for line in progress for word in ("rror", "Traceback")), text
    return error


def files_below(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def test_nothing_is_wrong_with_the_good_folder(folder):
    main(GOOD)
    names = {path.name for path in files_below("results/runs")}
    assert {"metrics.json", "confusion.npz", "per_image.npz", "config.yaml"} <= names


@pytest.mark.parametrize(
    ("change", "names", "cure"),
    [
        ("benchmark=folders", "benchmark 'folders'", "did you mean 'folder'"),
        ("method=cliptrace", "method 'cliptrace'", "did you mean 'cliptrase'"),
        ("model=shape_clip", "model 'shape_clip'", "did you mean 'shapes_clip'"),
        ("protocol=crops", "protocol 'crops'", "did you mean 'crop'"),
        ("method.region.eps=1", "'method.region'", "did you mean 'regions'"),
        ("image_sizes=224", "'image_sizes'", "did you mean 'image_size'"),
        ("method.regions.eps=0", "method.regions.eps=0", "greater than 0"),
        ("method.regions.eps=-1", "method.regions.eps=-1", "greater than 0"),
        ("method.regions.min_samples=0", "method.regions.min_samples=0", "1 or more"),
        ("method.regions.vote=softly", "method.regions.vote=softly", "soft"),
        ("image_size=230", "image_size=230", "take 224 or 240"),
        ("limit=0", "limit=0", "1 or more"),
        ("device=tpu", "device=tpu", "take auto, cpu, cuda"),
        ("benchmark.images=nowhere", "nowhere", "no such folder"),
        ("benchmark.labels=classes.txt", "classes.txt", "not a folder"),
        ("benchmark.classes=nowhere.txt", "nowhere.txt", "no such file"),
        ("vocabulary=voc2", "'voc2'", "voc20"),
    ],
)
def test_keys_and_values(change, names, cure, folder, capsys):
    line = refused(capsys, [*GOOD, change])
    assert names in line and cure in line, line


def edit(folder, fault):
    """Do one wrong thing to the folder; returns what the message must name, and the cure."""
    images, labels, classes = folder / "images", folder / "labels", folder / "classes.txt"
    match fault:
        case "truncated image":
            (images / "c.jpg").write_bytes((images / "c.jpg").read_bytes()[:900])
            return "c.jpg", "truncated or damaged"
        case "image that is a web page":
            (images / "b.jpg").write_text("<html>404</html>")
            return "b.jpg", "not an image"
        case "empty image":
            (images / "b.jpg").write_bytes(b"")
            return "b.jpg", "not an image"
        case "truncated mask":
            (labels / "b.png").write_bytes((labels / "b.png").read_bytes()[:200])
            return "b.png", "truncated or damaged"
        case "mask missing":
            (labels / "b.png").unlink()
            return "b.jpg", "mask"
        case "mask of another size":
            Image.fromarray(mask(1)[:, :40]).save(labels / "b.png")
            return "b.png", "make them equal"
        case "mask turned":
            Image.fromarray(mask(1).T).save(labels / "b.png")
            return "b.png", "make them equal"
        case "label outside the classes":
            labelled = mask(2)
            labelled[20, 20] = 3
            Image.fromarray(labelled).save(labels / "c.png")
            return "c.png", "3"
        case "mask of colours":
            picture(5).save(labels / "a.png")
            return "a.png", "one label a pixel"
        case "masks of 8 and of 16 bits":
            Image.fromarray(mask(1).astype(np.uint16)).save(labels / "b.png")
            return "b.png", "alike"
        case "empty folder of images":
            shutil.rmtree(images), images.mkdir()
            return "images", "no picture"
        case "empty folder of masks":
            shutil.rmtree(labels), labels.mkdir()
            return "labels", "no mask"
        case "empty class list":
            classes.write_text("\n")
            return "classes.txt", "one name a line"
        case "class named twice":
            classes.write_text("zebra\ngrass\nzebra\n")
            return "'zebra' is named twice", "once"
        case "no classes at all":
            classes.write_bytes(b"")
            return "classes.txt", "one name a line"
    raise ValueError(fault)


@pytest.mark.parametrize(
    "fault",
    [
        "truncated image",
        "image that is a web page",
        "empty image",
        "truncated mask",
        "mask missing",
        "mask of another size",
        "mask turned",
        "label outside the classes",
        "mask of colours",
        "masks of 8 and of 16 bits",
        "empty folder of images",
        "empty folder of masks",
        "empty class list",
        "class named twice",
        "no classes at all",
    ],
)
def test_pictures_masks_and_lists(fault, folder, capsys):
    names, cure = edit(folder, fault)
    line = refused(capsys, GOOD)
    assert names in line and cure in line, line


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_swapped_folders(kind, folder, capsys):
    """Also where both hold PNG files of the same names and sizes."""
    if kind == "png":
        for path in (folder / "images").glob("*.jpg"):
            Image.open(path).save(path.with_suffix(".png"))
            path.unlink()
    swapped = ["benchmark.images=labels", "benchmark.labels=images"]
    line = refused(capsys, [*GOOD, *swapped])
    assert "benchmark.images and benchmark.labels" in line and "swapped" in line


def test_background_words_may_repeat_and_classes_may_not(folder):
    (folder / "background.txt").write_text("bed\nbeachhill\nbed\n", encoding="utf-8")
    main([*GOOD, "benchmark.background=background.txt"])
    assert files_below("results/runs")


def test_a_run_folder_of_another_configuration_is_left_alone(folder, capsys):
    main([*GOOD, "out=runs"])
    main([*GOOD, "out=runs", "method.regions.eps=0.9"])
    run, other = sorted(folder.glob("runs/[a-z]*"), key=lambda path: "eps" in path.name)
    shutil.rmtree(run)
    other.rename(run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    capsys.readouterr()
    line = refused(capsys, [*GOOD, "out=runs"])
    assert run.name in line and "another configuration" in line and "out=" in line
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_disk_that_fills_up_leaves_no_run(folder, capsys, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = refused(capsys, GOOD)
    assert "no space left" in line


def test_a_disk_that_really_is_full(folder, capsys):
    """A file system of 64 kB; only root can mount one."""
    (folder / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", "small"]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        (folder / "small" / "filled").write_bytes(b"0" * 50_000)
        line = refused(capsys, [*GOOD, "out=small/runs"])
        assert "small/runs" in line and "no space left" in line
        assert not files_below("small/runs")
    finally:
        subprocess.run(["umount", "small"], check=True)
