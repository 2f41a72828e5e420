"""`cliptrase explain` on bad input: one line that names it and the cure, nothing written."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image
from tests.faults.refusals import refused_by
from tests.undrawn import only_numbers

from cliptrase.cli import main
from cliptrase.publish.figures import paper_figures

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
GOOD = ["good.png", "--model", "shapes_clip", "--templates", "shapes", "--out", "why"]
NO_PATCHES = "a picture of one patch has no patches to compare; enlarge it"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: a good picture, and what stands in the way."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURE).save("good.png")
    Image.fromarray(PICTURE[:3]).save("strip.png")
    Image.fromarray(PICTURE[:1, :1]).save("dot.png")
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "file").write_text("a file, no folder")
    return tmp_path


refused = partial(refused_by, "explain")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--patch", "14,0"], "good.png: patch (--patch) 14,0: the model sees patches of rows 0 t"),
        (["--patch", "0,21"], "rows 0 to 13, columns 0 to 20"),
        (["--patch=-1,0"], "rows 0 to 13, columns 0 to 20"),
        (["--patch", "-1,0"], "patch (--patch) -1,0: the model sees patches of rows 0 to 13"),
        (["--patch", "6"], "--patch '6': write two whole numbers, R,C"),
        (["--patch", "1,2,3"], "--patch '1,2,3': write two whole numbers, R,C"),
        (["--patch", "six,6"], "--patch 'six,6': write whole numbers"),
        (["--at", "60,0"], "good.png: at (--at) 60,0: outside what the model sees, x 0 to 59, y 0"),
        (["--at", "0,40"], "outside what the model sees, x 0 to 59, y 0 to 39"),
        (["--at=-1,0"], "outside what the model sees"),
        (["--crop", "--at", "9,20"], "at (--at) 9,20: outside what the model sees, x 10 to 49"),
        (["--crop", "--at", "50,20"], "outside what the model sees, x 10 to 49, y 0 to 39"),
        (["--crop", "--patch", "0,14"], "rows 0 to 13, columns 0 to 13"),
        (["--figures", "fig4_scr_atention"], "did you mean 'fig4_scr_attention'? There is: 10, 1b"),
        (["--figures", "2,7"], "--figures '7': no such figure. There is: 10, 1b, 2, 4, 5, 6, 9,"),
        (["--figures", ""], "--figures '': no such figure. There is: "),
        (["--blocks", "11,6"], "--blocks 6: does not exist in a model of 6 blocks: they are count"),
        (["--blocks", "13"], "here 7 … 12"),
        (["--blocks", "11", "--figures", "4"], "is of Figure 2, which --figures 4 leaves out"),
        (["--blocks", "last"], "--blocks 'last': write whole numbers"),
        (["--classes", "grass, zebra, Grass"], "'Grass' is named twice (entries 1 and 3)"),
        (["--classes", "grass", "--background", "Grass"], "remove it from the background words"),
        (["--background", "sky"], "give"),
        (["--classes", ""], "--classes: the list is empty"),
        (
            ["--out", "file"],
            "file/explanation.txt: a file or folder of that name stands in the way",
        ),
        (["--out", "file/why"], "stands in the way"),
        (["--out", "/proc/why"], "choose another place"),
        (["--out", "x" * 256], "too long"),
        (["--image-size", "16", "--crop"], f"error: good.png: {NO_PATCHES}\n"),
        (["--method", "clip", "--figures", "4,5"], "--figures 4,5: method clip makes no clusters"),
        (["--method", "cliptrace"], "did you mean 'cliptrase'"),
        (["--set", "method.regions.eps=-1"], "method.regions.eps=-1: must be a number greater"),
    ],
)
def test_options(changes, message, folder, capsys):
    line = refused(folder, capsys, [*GOOD, *changes])
    assert message in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--patch", "1,1", "--at", "3,3"], "--at: not allowed with argument --patch"),
        (["--after", "scr"], "choose from"),
        (["--figure", "4,5", "--at"], "--at"),
    ],
)
def test_a_wrong_command_line(changes, message, folder, capsys):
    assert message in refused(folder, capsys, [*GOOD, *changes], code=2)


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("absent.jpg", [], "no such file"),
        ("page.jpg", [], "not an image"),
        (".", [], "a folder"),
        ("strip.png", [], "a picture of 60 × 3 pixels is too long for the model"),
        ("dot.png", ["--image-size", "16"], NO_PATCHES),
        ("strip.png", ["--crop", "--at", "20,1"], "outside what the model sees"),
    ],
)
def test_a_bad_picture_among_good_ones_stops_before_anything_is_written(
    file, options, message, folder, capsys
):
    line = refused(folder, capsys, ["good.png", file, *GOOD[1:], *options])
    assert line.startswith(f"error: {file}: ") and message in line


BAD = [
    ["absent.jpg"],
    ["strip.png"],
    ["good.png", "--out", "file"],
    ["good.png", "--patch", "six,6"],
    ["good.png", "--at", "1"],
    ["good.png", "--blocks", "last"],
    ["good.png", "--figures", "7"],
    ["good.png", "--classes", "a,a"],
    ["good.png", "--method", "none"],
    ["good.png", "--image-size", "100"],
]
SCRIPT = (
    "import contextlib, sys\nfrom cliptrase.cli import main\n"
    "for words in {cases!r}:\n"
    "    with contextlib.suppress(SystemExit):\n"
    "        main(['explain', *words])\n"
    "sys.exit(', '.join({heavy!r} & set(sys.modules)) or 0)"
)


@pytest.mark.parametrize(
    ("cases", "heavy"),
    [
        ([["--help"], ["a.png"], ["a.png", "--out", "why", "--pach", "1,1"]],
         {"torch", "matplotlib", "numpy", "PIL", "hydra"}),
        ([["--out", "why", "--model", "shapes_clip", *each] for each in BAD],
         {"torch", "matplotlib"}),
    ],
)  # fmt: skip
def test_what_fails_quickly_imports_nothing_heavy(cases, heavy, folder):
    script = SCRIPT.format(cases=cases, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = sum("--help" not in case for case in cases)
    assert done.stderr.count("error: ") == done.stderr.count("\n") == wanted, done.stderr
    assert ("--patch R,C" in done.stdout) == (["--help"] in cases)


def saved(name, kind):
    """The picture in another form, and the same as RGB of 8 bits."""
    grey = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) % 256
    match kind:
        case "cmyk":
            image = Image.fromarray(PICTURE).convert("CMYK")
            plain = image.convert("RGB")
        case "alpha":
            alpha = np.where(np.arange(60) < 30, 255, 0).astype(np.uint8)
            image = Image.fromarray(np.dstack([PICTURE, np.broadcast_to(alpha, (40, 60))]))
            plain = Image.fromarray(np.where(alpha[:, None] > 0, PICTURE, np.uint8(255)))
        case "16 bits":
            image = Image.fromarray(grey * 257)
            plain = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    image.save(name)
    return plain


@pytest.mark.parametrize(
    ("kind", "ending"), [("cmyk", "tif"), ("alpha", "png"), ("16 bits", "png")]
)
def test_other_kinds_of_pictures_are_read_as_segment_reads_them(
    kind, ending, folder, capsys, monkeypatch
):
    monkeypatch.setattr(paper_figures, "save", only_numbers)
    (folder / "other").mkdir(), (folder / "plain").mkdir()
    saved(f"other/a.{ending}", kind).save("plain/a.png")
    for place in (f"other/a.{ending}", "plain/a.png"):
        main(["explain", place, *GOOD[1:-1], place.split("/")[0] + "/why", "--figures", "2,5"])
    for name in ("fig2_global_patches", "fig5_clusters"):
        with np.load(f"other/why/{name}.npz") as other, np.load(f"plain/why/{name}.npz") as plain:
            assert dict(other).keys() == dict(plain).keys()
            assert all(np.array_equal(other[key], plain[key]) for key in other)
