"""Segmenter: the graph's own numbers, brought to the picture; a crop is what a pass scores."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.objects import listed_text

import cliptrase
from cliptrase import config
from cliptrase.data.read.crop import crop_image, crop_label
from cliptrase.data.read.vocabularies import read_templates, template_path
from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.model.load import load_clip
from cliptrase.model.text import text_features
from cliptrase.segmenter import Segmenter
from cliptrase.shapes.scenes import evaluation_scene

WORDS = ["zebra", "ladybug", "strawberry", "banana", "basketball", "grass", "brick"]
TEMPLATES = "shapes"


@pytest.fixture(scope="module")
def scene():
    return evaluation_scene("shapes", 3)


@pytest.fixture(scope="module")
def wide(scene):
    """A picture of 300 × 180 pixels: not square, and no whole number of patches."""
    return Image.fromarray(np.asarray(scene.image)).resize((300, 180), Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def whole():
    return Segmenter("shapes_clip", classes=WORDS, templates=TEMPLATES)


@pytest.fixture(scope="module")
def crop():
    return Segmenter("shapes_clip", classes=WORDS, templates=TEMPLATES, crop=True)


@pytest.fixture(scope="module")
def clip():
    run = config.resolve(["benchmark=shapes", "model=shapes_clip"])
    return load_clip(run.model, "cpu")


def by_hand(clip, pixels, method, classes, background=()):
    """(H, W) labels and regions: the graph on (H, W, 3) uint8 pixels, nothing of Segmenter's."""
    torch.set_num_threads(1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (clip.mean, clip.std))
    batch = ((torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255 - mean) / std)[None]
    names = [*classes, *background]
    features = text_features(clip, names, read_templates(template_path(TEMPLATES)))
    text = listed_text(features, len(classes))
    graph = Graph(clip, batch, out_size=pixels.shape[:2])
    labels, regions = graph.prediction(method, text, "words", 100.0), graph.regions(method)
    return labels[0].numpy(), regions[0].numpy()


def resolved(*overrides):
    return config.resolve(["benchmark=shapes", "model=shapes_clip", *overrides]).method


@pytest.mark.parametrize("background", [(), ("sand", "water", "sand")])
def test_a_crop_is_the_graph_on_the_protocols_crop(crop, clip, wide, background):
    labels, regions = by_hand(clip, crop_image(wide, 224), resolved(), WORDS, background)
    result = crop.classify(crop.encode(wide), WORDS, background or None)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_array_equal(result.regions, regions)
    assert result.labels.dtype == np.uint16 and result.regions.dtype == np.int32


def test_a_whole_picture_is_the_graph_on_all_its_pixels(whole, clip, wide):
    """300 × 180 becomes 368 × 224: 23 × 14 patches, with an eps and min_samples of their own."""
    pixels = np.asarray(wide.resize((368, 224), Image.Resampling.BICUBIC))
    eps = 0.7 * (23 * 14 / 196) ** 0.5
    method = resolved(f"method.regions.eps={eps}", "method.regions.min_samples=5")
    labels, regions = by_hand(clip, pixels, method, WORDS)
    result = whole(wide)
    assert result.network_size == (224, 368)
    for mine, theirs in ((result.labels, labels), (result.regions, regions)):
        image = Image.fromarray(theirs.astype(np.int32))
        shown = np.asarray(image.resize((300, 180), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(mine, shown)


def test_eps_follows_the_patches_unless_it_is_given(whole, wide):
    regions = whole.encode(wide).method.regions
    assert regions.eps == pytest.approx(0.7 * (23 * 14 / 196) ** 0.5)
    assert regions.min_samples == 5
    fixed = Segmenter("shapes_clip", classes=WORDS, overrides=["method.regions.eps=0.5"])
    assert fixed.encode(wide).method.regions.eps == 0.5
    assert fixed.encode(wide).method.regions.min_samples == 5


def test_the_labels_of_a_crop_are_those_that_a_pass_scores(crop, tmp_path, scene, wide):
    """Rows and columns of the run's confusion matrix, from the label maps alone."""
    from cliptrase.evaluate.passes import run_pass

    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir(), labels.mkdir()
    generator = np.random.default_rng(7)
    pictures = {"a": Image.fromarray(np.asarray(scene.image)), "b": wide}
    expected = np.zeros((len(WORDS), len(WORDS)), dtype=np.int64)
    for name, picture in pictures.items():
        size = (picture.height // 4 + 1, picture.width // 4 + 1)
        mask = generator.integers(0, len(WORDS), size).astype(np.uint8).repeat(4, 0).repeat(4, 1)
        mask = mask[: picture.height, : picture.width]
        picture.save(images / f"{name}.png")
        Image.fromarray(mask).save(labels / f"{name}.png")
        truth = crop_label(mask.astype(np.int32), 224)
        np.add.at(expected, (truth, crop(picture).labels), 1)
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    run = config.resolve(
        [
            "benchmark=folder",
            f"benchmark.images={images}",
            f"benchmark.labels={labels}",
            f"benchmark.classes={tmp_path / 'words.txt'}",
            f"benchmark.templates={TEMPLATES}",
            "model=shapes_clip",
        ]
    )
    folders = run_pass(
        {run.name: run},
        partial=tmp_path / "partial",
        out=tmp_path / "runs",
        data=tmp_path / "data",
    )
    with np.load(next(iter(folders.values())) / "confusion.npz") as file:
        np.testing.assert_array_equal(file["confusion"], expected)


def test_classify_often_equals_a_fresh_call(crop, scene):
    encoded = crop.encode(scene.image)
    first = crop.classify(encoded)
    other = crop.classify(encoded, ["zebra", "grass"], background=["brick"])
    again = crop.classify(encoded)
    np.testing.assert_array_equal(first.labels, again.labels)
    fresh = Segmenter(
        "shapes_clip",
        classes=["zebra", "grass"],
        background=["brick"],
        templates=TEMPLATES,
        crop=True,
    )
    np.testing.assert_array_equal(fresh(scene.image).labels, other.labels)
    assert other.names == ("zebra", "grass", "background") and other.background == 2
    assert first.names == tuple(WORDS) and first.background is None


def test_background_words_share_the_label_after_the_last_class(scene):
    """Without a vote the fold is visible: the same winners, those from C on become C."""
    common = {"model": "shapes_clip", "templates": TEMPLATES, "crop": True}
    clip_alone = Segmenter(**common, method="clip")
    encoded = clip_alone.encode(scene.image)
    plain = clip_alone.classify(encoded, WORDS).labels
    folded = clip_alone.classify(encoded, WORDS[:4], WORDS[4:])
    np.testing.assert_array_equal(folded.labels, np.minimum(plain, 4))
    assert (folded.regions == -1).all()


def test_a_class_wins_where_one_of_its_names_does():
    """Each name a class of its own, then the winners handed to the classes by a table."""
    alone = Segmenter("shapes_clip", method="maskclip", templates=TEMPLATES, crop=True)
    encoded = alone.encode(evaluation_scene("shapes", 2).image)
    each = alone.classify(encoded, WORDS).labels
    assert len(np.unique(each)) == len(WORDS)
    found = alone.classify(
        encoded, ["zebra|ladybug|grass", "strawberry", "banana|basketball"], ["brick"]
    )
    owners = {"zebra": 0, "ladybug": 0, "grass": 0, "strawberry": 1, "banana": 2, "basketball": 2}
    owner = np.array([owners.get(name, 3) for name in WORDS])
    np.testing.assert_array_equal(found.labels, owner[each])
    assert found.names == ("zebra", "strawberry", "banana", "background")
    assert found.background == 3
    assert len(np.unique(each)) > len(np.unique(found.labels))


def test_background_words_may_be_split_too(crop, scene):
    encoded = crop.encode(scene.image)
    one = crop.classify(encoded, ["zebra", "ladybug"], ["grass|brick|sand"])
    three = crop.classify(encoded, ["zebra", "ladybug"], ["grass", "brick", "sand"])
    np.testing.assert_array_equal(one.labels, three.labels)


def test_every_region_has_one_label(whole, wide):
    result = whole(wide)
    assert result.regions.shape == result.labels.shape == (180, 300)
    assert result.regions.max() > 0
    for region in np.unique(result.regions):
        assert len(np.unique(result.labels[result.regions == region])) == 1


def test_a_picture_an_array_and_a_file_are_one(whole, wide, tmp_path):
    wide.save(tmp_path / "picture.png")
    expected = whole(wide).labels
    for same in (np.asarray(wide), tmp_path / "picture.png", str(tmp_path / "picture.png")):
        np.testing.assert_array_equal(whole(same).labels, expected)


def test_an_open_clip_folder_is_the_same_model(whole, wide):
    folder = cliptrase.resources.resource("assets", "shapes_clip")
    local = Segmenter(f"local-dir:{folder}", classes=WORDS, templates=TEMPLATES)
    named = Segmenter(
        "local", classes=WORDS, templates=TEMPLATES, overrides=[f"model.path={folder}"]
    )
    assert local.image_size == named.image_size == 224
    np.testing.assert_array_equal(local(wide).labels, whole(wide).labels)
    np.testing.assert_array_equal(named(wide).labels, whole(wide).labels)
    path = Segmenter(Path(folder), classes=WORDS, templates=TEMPLATES)
    np.testing.assert_array_equal(path(wide).labels, whole(wide).labels)


def test_threads_of_the_caller_change_nothing(whole, wide):
    expected = whole(wide).labels
    torch.set_num_threads(2)
    try:
        np.testing.assert_array_equal(whole(wide).labels, expected)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_words_that_the_model_has_never_seen_are_named_once(whole, scene, caplog):
    encoded = whole.encode(scene.image)
    with caplog.at_level("WARNING"):
        whole.classify(encoded, ["zebra", "xylophone"])
        whole.classify(encoded, ["ladybug", "xylophone"])
        whole.classify(encoded, ["ladybug|theremin", "zebra"])
    assert [record.getMessage() for record in caplog.records if "xylophone" in record.getMessage()]
    assert caplog.text.count("xylophone") == 1 and caplog.text.count("'theremin'") == 1
    assert "zebra" not in caplog.text and "ladybug" not in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": []}, "classes: the list is empty"),
        ({"classes": "cat"}, "give a list of words"),
        ({"classes": ["cat", "dog", "cat"]}, "'cat' is named twice (entries 1 and 3)"),
        ({"classes": ["cat", " "]}, "classes: "),
        ({"classes": ["cat|"]}, "classes: entry 1 has nothing on one side of a '|'"),
        ({"classes": ["cat|tom", "tom"]}, "'tom' is named twice (entries 1 and 2)"),
        ({"classes": ["cat"], "background": ["|sky"]}, "background: entry 1 has nothing"),
        ({"classes": ["cat"], "background": []}, "background: the list is empty"),
        ({"classes": {"cat", "dog"}}, "classes: of type set; give a list of words, whose order"),
        ({"classes": {0: "cat"}}, "classes: of type dict; give a list of words"),
        ({"classes": {"cat": 0}}, "classes: of type dict; give a list of words"),
        (
            {"classes": [["sofa", "couch"]]},
            "classes: entry 1 is of type list; give a list of words",
        ),
        ({"classes": ["cat", 2]}, "classes: entry 2 is of type int"),
        ({"classes": ["cat", None]}, "classes: entry 2 is of type NoneType"),
        ({"classes": b"cat"}, "classes: of type bytes"),
        ({"classes": Path("words.txt")}, "give a list of words"),
        ({"classes": 3}, "classes: of type int"),
        ({"classes": np.array("cat")}, "classes: of type ndarray"),
        ({"classes": ["cat\ndog"]}, r"classes: entry 1, 'cat\ndog', holds '\n'"),
        ({"classes": ["caf\xe9", "cafe\u0301"]}, "is named twice (entries 1 and 2), to CLIP's"),
        ({"classes": ["word " * 90]}, "92 tokens long"),
        ({"background": ["word " * 90]}, "92 tokens long"),
        ({"background": {"sky"}}, "background: of type set"),
        ({"background": ["sky", " ZEBRA"]}, "background: ' ZEBRA' is the name 'zebra' of a class"),
        ({"classes": None, "background": ["sky"]}, "background: words without classes"),
        ({"model": None}, "model: of type NoneType; give a name or a Path. There is: local"),
        ({"model": 3}, "model: of type int"),
        ({"model": Path("/nowhere")}, "/nowhere: no such folder; model.path names"),
        ({"templates": ["a {}."]}, "templates: give a shipped list's name or a text file"),
        ({"overrides": "method.regions.eps=1"}, "overrides: give a list of words"),
        ({"overrides": {"method.regions.eps": 1}}, "overrides: of type dict"),
        ({"overrides": [3]}, "overrides: entry 1 is of type int"),
        ({"overrides": None}, "overrides: of type NoneType"),
        ({"method": "cliptrace"}, "did you mean 'cliptrase'"),
        ({"classes": ["cat", "Background"], "background": ["sky"]}, "'background' is the name"),
        ({"model": "auto"}, "unknown model 'auto'; "),
        ({"model": "/"}, "model '/': a folder; write local-dir:/"),
        ({"model": Path("shapes_clip")}, "give the model of that name as text, 'shapes_clip'"),
        ({"model": "shapes_clop"}, "did you mean 'shapes_clip'"),
        ({"model": "local-dir:/nowhere"}, "/nowhere: no such folder; model.path names"),
        ({"model": "local"}, "model.path is needed"),
        ({"image_size": 230}, "take 224 or 240"),
        ({"image_size": 0}, "image_size=0"),
        ({"device": "gpu"}, "take auto, cpu, cuda"),
        ({"templates": "imagenet"}, "did you mean 'imagenet80'"),
        ({"overrides": ["method.regions.eps=0"]}, "method.regions.eps=0: must be"),
        ({"overrides": ["method.regions.epsilon=1"]}, "unknown key 'method.regions.epsilon'"),
        ({"overrides": ["benchmark=voc20"]}, "benchmark=voc20"),
        ({"overrides": ["method=clip"]}, "method=clip"),
    ],
)
def test_what_a_user_can_get_wrong(options, message):
    with pytest.raises(UserError) as caught:
        Segmenter(**{"model": "shapes_clip", "classes": ["zebra"], **options})
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "picture",
    [torch.zeros(3, 40, 60), ["a.png", "b.png"], ("a.png",), None, 3, {"image": "a.png"}, iter([])],
    ids=lambda picture: type(picture).__name__,
)
def test_what_is_no_picture_is_named_with_the_cure(whole, picture):
    for attempt in (whole, whole.encode, whole.seen):
        with pytest.raises(UserError) as caught:
            attempt(picture)
        message = str(caught.value)
        assert f"of type {type(picture).__name__}: give one picture a call" in message
        assert "permute(1, 2, 0)" in message and "\n" not in message
    with pytest.raises(UserError, match=r"classify takes what encode\(picture\) returned"):
        whole.classify(picture)


def test_a_file_may_lie_in_the_home_folder(whole, wide, tmp_path, monkeypatch):
    wide.save(tmp_path / "picture.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert whole.seen("~/picture.png").size == wide.size


def test_files_may_be_open_and_tensors_follow_the_cure(whole, wide, tmp_path):
    wide.save(tmp_path / "picture.png")
    expected = whole(wide).labels
    with open(tmp_path / "picture.png", "rb") as file:
        np.testing.assert_array_equal(whole(file).labels, expected)
    np.testing.assert_array_equal(whole((tmp_path / "picture.png").read_bytes()).labels, expected)
    tensor = torch.tensor(np.asarray(wide)).permute(2, 0, 1).float() / 255
    array = (255 * tensor).byte().permute(1, 2, 0).cpu().numpy()
    np.testing.assert_array_equal(whole(array).labels, expected)


@pytest.mark.parametrize("crop", [False, True])
def test_a_picture_has_no_labels_for_an_oracle(crop):
    message = r"^method\.attention\.within=truth: it needs labels; an oracle of Table 4, for bench"
    with pytest.raises(UserError, match=message):
        Segmenter("shapes_clip", crop=crop, overrides=["method.attention.within=truth"])


def test_words_of_a_classification_are_checked_too(whole, scene):
    encoded = whole.encode(scene.image)
    for words, message in (
        ((["zebra"], ["Zebra"]), "is the name 'zebra' of a class"),
        ((None, ["sky"]), "background: words without classes"),
        (({"zebra", "grass"},), "classes: of type set"),
        ((["grass", "word " * 90],), "92 tokens long"),
    ):
        with pytest.raises(UserError) as caught:
            whole.classify(encoded, *words)
        assert message in str(caught.value)
    names = ["zebra", "grass"]
    for same in (tuple(names), np.array(names), iter(names), dict.fromkeys(names).keys()):
        assert whole.classify(encoded, same).names == ("zebra", "grass")


def test_one_class_without_background_is_warned_about(whole, scene, caplog):
    encoded = whole.encode(scene.image)
    whole.classify(encoded, ["zebra", "grass"])
    whole.classify(encoded, ["zebra"], ["grass"])
    assert "one class" not in caplog.text
    for _ in range(2):
        whole.classify(encoded, ["zebra grass|brick"])
    assert caplog.text.count("one class was read, 'zebra grass|brick', and no background") == 1


def test_pictures_that_cannot_be_segmented(whole, tmp_path):
    with pytest.raises(UserError, match="too long"):
        whole(np.zeros((10, 400, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=r"absent\.jpg"):
        whole(tmp_path / "absent.jpg")
    with pytest.raises(UserError, match="a picture of 0 × 5: it has no pixels"):
        whole(Image.new("RGB", (0, 5)))
    with pytest.raises(UserError, match="no classes"):
        Segmenter("shapes_clip")(np.zeros((32, 32, 3), dtype=np.uint8))


def test_a_picture_that_does_not_fit_into_memory_names_the_option(whole, scene, monkeypatch):
    def large(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 TB")

    encoded = whole.encode(scene.image)
    monkeypatch.setattr(Graph, "__init__", large)
    monkeypatch.setattr(type(encoded.encoded), "classify", large)
    for attempt in (lambda: whole.encode(scene.image), lambda: whole.classify(encoded)):
        with pytest.raises(UserError, match=r"the picture .* smaller image_size \(--image-size\)"):
            attempt()


def test_no_classes_are_fine_until_classify(scene):
    bare = Segmenter("shapes_clip", templates=TEMPLATES, image_size=112)
    result = bare.classify(bare.encode(scene.image), ["zebra"])
    assert result.labels.max() == 0


def test_the_cls_factor_is_off_unless_asked_for(whole, scene):
    assert whole.encode(scene.image).method.cls_logits is False
    on = Segmenter("shapes_clip", overrides=["method.cls_logits=true"])
    assert on.encode(scene.image).method.cls_logits is True
