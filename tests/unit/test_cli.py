"""The console script: what its files hold, where they go, and that it starts at once."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cliptrase
from cliptrase.cli import contents, main
from cliptrase.cli.contents import paint
from cliptrase.cli.segment import plan_outputs
from cliptrase.errors import UserError
from cliptrase.runs import label_files
from cliptrase.runs.label_files import colours, labels_png
from cliptrase.segmenter import Segmenter

WORDS = ["zebra", "ladybug", "grass"]
COMMON = ["--model", "shapes_clip", "--templates", "shapes"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two pictures of noise, 60 × 40 and 32 × 48, in a folder of their own."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for name, size in (("one.png", (40, 60, 3)), ("two.jpg", (48, 32, 3))):
        Image.fromarray(generator.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    return folder


def segment(*arguments):
    main(["segment", *map(str, arguments), *COMMON])


def test_help_and_version_start_without_torch_or_hydra():
    """What costs seconds is imported inside a command: `cliptrase --help` takes ≤ 0.5 s."""
    code = (
        "import sys\nfrom cliptrase.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'hydra', 'pandas', 'sklearn', 'datasets', 'wandb'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in (
        "segment",
        "prepare",
        "evaluate",
        "plan",
        "tables",
        "figures",
        "publish",
        "verify",
    ):
        assert f"  {command} " in done.stdout


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cliptrase {cliptrase.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmnt", "a.jpg"], "unknown command 'segmnt'. did you mean 'segment'?"),
        ([], "COMMAND"),
        (["segment", "--classes", "a"], "IMAGE"),
        (["segment", "a.jpg"], "one of the arguments --classes --classes-file is required"),
        (["segment", "a.jpg", "--classes", "a", "--image-size", "big"], "--image-size"),
        (["segment", "a.jpg", "--classes", "a", "--clases-file", "b"], "--clases-file"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr()
    assert ended.value.code == 2 and not captured.out
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err


def test_plan_hands_its_arguments_on(capsys):
    main(["plan", "smoke"])
    assert capsys.readouterr().out.startswith("pass\trun\tbenchmark\tmethod\timage_size\n")


def test_segment_writes_what_segmenter_says(pictures, tmp_path, capsys):
    out = {"labels": tmp_path / "l.png", "overlay": tmp_path / "o.png", "json": tmp_path / "r.json"}
    options = [word for kind, path in out.items() for word in (f"--{kind}", path)]
    words = ["--classes", "zebra, ladybug,grass", "--background", "sand"]
    segment(pictures / "one.png", *words, *options)
    expected = Segmenter("shapes_clip", classes=WORDS, background=["sand"], templates="shapes")(
        pictures / "one.png"
    )
    with Image.open(out["labels"]) as labels:
        assert labels.mode == "L" and labels.size == (60, 40)
        np.testing.assert_array_equal(np.asarray(labels), expected.labels)
    with Image.open(out["overlay"]) as overlay:
        assert overlay.width >= 60 and overlay.height > 40
    report = json.loads(out["json"].read_text(encoding="utf-8"))
    assert (report["width"], report["height"]) == (60, 40)
    assert (report["network_width"], report["network_height"]) == (336, 224)
    assert report["model"] == "shapes_clip" and report["method"]["name"] == "cliptrase"
    assert [entry["name"] for entry in report["classes"]] == [*WORDS, "background"]
    assert report["background"] == 3
    counts = [int((expected.labels == index).sum()) for index in range(4)]
    assert [entry["pixels"] for entry in report["classes"]] == counts
    assert sum(entry["share"] for entry in report["classes"]) == pytest.approx(1)
    assert sum(entry["pixels"] for entry in report["regions"]) in (0, 60 * 40)
    assert capsys.readouterr().out == "".join(f"wrote {path}\n" for path in out.values())


def test_without_outputs_the_shares_are_printed(pictures, capsys):
    segment(pictures / "one.png", "--classes", "zebra,grass")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{pictures / 'one.png'}: 60 × 40"
    shares = {line.split()[0]: float(line.split()[1]) for line in lines[1:]}
    assert set(shares) == {"zebra", "grass"} and sum(shares.values()) == pytest.approx(100, abs=0.2)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_words_may_be_the_lines_of_a_file(end, pictures, tmp_path, capsys):
    """As --classes "$(cat words.txt)" gives them, and from the file itself."""
    (tmp_path / "words.txt").write_bytes(f"zebra{end}lawn|grass{end}brick{end}".encode())
    listed = f"zebra{end}lawn|grass{end}brick"
    printed = []
    for option, words in (
        ("--classes", "zebra, lawn|grass, brick"),
        ("--classes", listed),
        ("--classes-file", str(tmp_path / "words.txt")),
    ):
        segment(pictures / "one.png", option, words)
        printed.append(capsys.readouterr().out)
    assert printed[0].count("%") == 3 and len(set(printed)) == 1


def test_one_class_without_background_is_warned_about(pictures, caplog):
    for words in ("zebra grass brick", "words.txt"):
        segment(pictures / "one.png", "--classes", words)
        assert f"one class was read, '{words}', and no background words" in caplog.text
    caplog.clear()
    segment(pictures / "one.png", "--classes", "zebra", "--background", "grass")
    assert not caplog.text


def test_a_class_of_several_names_shows_the_first(pictures, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("zebra|ladybug\ngrass\n", encoding="utf-8")
    expected = Segmenter("shapes_clip", classes=["zebra|ladybug", "grass"], templates="shapes")(
        pictures / "one.png"
    )
    for words in (
        ["--classes", "zebra | ladybug,grass"],
        ["--classes-file", tmp_path / "words.txt"],
    ):
        report = tmp_path / "r.json"
        segment(pictures / "one.png", *words, "--json", report)
        found = json.loads(report.read_text())["classes"]
        assert [entry["name"] for entry in found] == ["zebra", "grass"] == list(expected.names)
        counts = np.bincount(expected.labels.ravel(), minlength=2).tolist()
        assert [entry["pixels"] for entry in found] == counts
    with pytest.raises(SystemExit):
        segment(pictures / "one.png", "--classes", "zebra,grass|zebra")
    assert "--classes: 'zebra' is named twice (entries 1 and 2)" in capsys.readouterr().err


def test_a_crop_has_the_networks_size(pictures, tmp_path):
    overlay, labels = tmp_path / "o.jpg", tmp_path / "l.png"
    segment(
        pictures / "one.png",
        *("--classes", "zebra,grass", "--crop", "--image-size", "112"),
        *("--labels", labels, "--overlay", overlay),
    )
    assert Image.open(labels).size == (112, 112)
    assert Image.open(overlay).format == "JPEG"


@pytest.mark.parametrize("pattern", ["masks/", "masks/{name}.png"])
def test_several_pictures_go_into_a_folder_or_a_pattern(pattern, pictures, tmp_path):
    (tmp_path / "words.txt").write_text("zebra\ngrass\n", encoding="utf-8")
    segment(
        *sorted(pictures.iterdir()),
        *("--classes-file", tmp_path / "words.txt", "--labels", f"{tmp_path}/{pattern}"),
    )
    written = {path.name: Image.open(path).size for path in (tmp_path / "masks").iterdir()}
    assert written == {"one.png": (60, 40), "two.png": (32, 48)}


def test_set_reaches_the_method(pictures, tmp_path):
    report = tmp_path / "r.json"
    segment(
        pictures / "one.png",
        *("--classes", "zebra", "--json", report),
        *("--set", "method.regions.eps=0.5", "method.regions.median=5"),
        *("--set", "method.attention.terms=[qq,kk]"),
    )
    method = json.loads(report.read_text())["method"]
    assert method["regions"]["eps"] == 0.5 and method["regions"]["median"] == 5
    assert method["attention"]["terms"] == ["qq", "kk"]


@pytest.mark.parametrize(("names", "mode"), [(255, "L"), (256, "I;16")])
def test_labels_take_16_bits_where_255_would_be_a_class(names, mode, tmp_path):
    labels = np.arange(names, dtype=np.uint16)[None].repeat(2, 0)
    (tmp_path / "l.png").write_bytes(labels_png(labels, names))
    with Image.open(tmp_path / "l.png") as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), labels)


def test_where_files_go(tmp_path):
    images = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    (tmp_path / "there").mkdir()
    options = {"--labels": str(tmp_path / "there"), "--overlay": "seen/{name}.webp", "--json": None}
    first, second = plan_outputs(images, options)
    assert {option: str(path) for option, path in first.items()} == {
        "--labels": str(tmp_path / "there" / "a.png"),
        "--overlay": "seen/a.webp",
    }
    assert second["--labels"].name == "b.png"


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (["a.jpg", "b.jpg"], {"--labels": "out.png"}, "one file for 2 pictures"),
        (["a.jpg", "x/a.jpg"], {"--labels": "out/"}, "out/a.png"),
        (["a.jpg"], {"--labels": "o/", "--overlay": "o/"}, "the place of --labels of a.jpg"),
        (["a.png"], {"--labels": "a.png"}, "the place of the picture a.png"),
        (["a.png"], {"--labels": "x/../a.png"}, "the place of the picture a.png"),
        (["a.jpg"], {"--labels": "out.jpg"}, "cannot write '.jpg'"),
        (["a.jpg"], {"--overlay": "out"}, "cannot write 'a file without ending'"),
        (["a.jpg"], {"--json": "out.jsn"}, "did you mean '.json'"),
    ],
)
def test_ambiguous_outputs_are_refused(images, options, message):
    with pytest.raises(UserError) as caught:
        plan_outputs([Path(image) for image in images], options)
    assert message in str(caught.value) and next(iter(options)) in str(caught.value)


def test_a_painted_picture_shows_its_classes():
    photo = Image.new("RGB", (200, 100), (100, 100, 100))
    labels = np.zeros((100, 200), dtype=np.uint16)
    labels[:, 100:] = 2
    page = np.asarray(paint(photo, labels, ["a", "b", "nothing"], background=2)).astype(int)
    assert page.shape[1] == 200 and page.shape[0] > 100
    red, green, blue = page[50, 50]
    assert red > green > blue  # the first colour, orange, over grey
    assert len(set(page[50, 150])) == 1  # background stays grey
    assert (page[50, 98] == 255).all() or (page[50, 99] == 255).all()  # the border is drawn
    with pytest.raises(ValueError, match="differ in size"):
        paint(photo, labels[:50], ["a", "b", "nothing"])


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """A machine with one more font, which has a box for a CJK character."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for number, corner in enumerate([(100, 0), (100, 800), (900, 800), (900, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord("猫"): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Boxes", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "boxes.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    listed = [str(tmp_path / "broken.ttf"), str(tmp_path / "boxes.ttf")]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: listed)
    for cached in (label_files._font, label_files._fonts, contents._say_unwritable):
        cached.cache_clear()
    yield listed
    for cached in (label_files._font, label_files._fonts, contents._say_unwritable):
        cached.cache_clear()


def test_the_legend_takes_a_font_that_has_the_characters(fonts, caplog):
    labels = np.array([[0, 1, 2, 3]], np.uint16)
    names = ["猫 zebra", "\U0001f993", "é\ufe0f", "😀"]  # the last two are in the main font
    texts = [text for _, text in contents._entries(labels, names)]
    assert texts == [f"{name}  25.0 %" for name in ("猫 zebra", "#1", "é\ufe0f", "😀")]
    assert len(caplog.messages) == 1 and "'\U0001f993'; its legend shows #1" in caplog.text
    runs = label_files._runs(texts[0], 20)
    assert [text for text, *_ in runs] == ["猫", " zebra  25.0 %"] and runs[0][2] == 20
    page = np.asarray(paint(Image.new("RGB", (300, 1)), labels.repeat(75, 1), names))
    box = page[1:, 6 + 12 + 6 : 6 + 12 + 6 + 12]  # of the first entry's first character
    assert (box == label_files.INK).all(-1).sum() > 60, "a box of 9.6 × 9.6 pixels"


def test_colours_of_many_classes_differ_and_stay():
    assert len(np.unique(colours(200), axis=0)) == 200
    np.testing.assert_array_equal(colours(200)[:7], colours(7))


def test_a_name_too_long_for_the_disk_is_one_message():
    with pytest.raises(UserError, match="take a shorter one"):
        plan_outputs([Path("a.jpg")], {"--labels": "x" * 300 + ".png"})


def test_ctrl_c_ends_a_command_with_a_word(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cliptrase.cli.verify.run", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["verify"])
    assert ended.value.code == 130 and capsys.readouterr().err == "interrupted\n"
