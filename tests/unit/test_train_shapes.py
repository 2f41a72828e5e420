"""Training the embedded CLIP: resumes bit for bit, exports what open_clip loads, never peeks."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import asdict, replace

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from cliptrase.shapes import captions, concepts, descent, scenes
from cliptrase.shapes import card as shapes_card
from cliptrase.shapes import model as shapes_model
from cliptrase.shapes import train as train_shapes
from cliptrase.shapes import views as shapes_views
from cliptrase.shapes.model import CaptionTokenizer, Tower
from cliptrase.shapes.train import FIRST, SECOND, Schedule, batch, build_store, train

SCHEDULE = Schedule(steps=6, batch=8, scenes=24)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes_train")


@pytest.fixture(scope="module")
def store(folder):
    return build_store(folder, SCHEDULE.scenes)


@pytest.fixture(scope="module")
def trained(store, folder):
    return train(store, SCHEDULE, folder / "whole.pt")


@pytest.fixture(scope="module")
def exported(trained, folder):
    shapes_model.export(trained[0], CaptionTokenizer(), folder / "out")
    return folder / "out"


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(store, folder, trained):
    train(store, SCHEDULE, folder / "parts.pt", stop=2)
    train(store, SCHEDULE, folder / "parts.pt", stop=5)
    model, record = train(store, SCHEDULE, folder / "parts.pt")
    for name, value in trained[0].state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert record["losses"] == trained[1]["losses"]


def test_a_checkpoint_of_another_recipe_is_refused(store, folder, trained):
    with pytest.raises(ValueError, match="another recipe"):
        train(store, Schedule(steps=7, batch=8, scenes=24), folder / "whole.pt")


def test_the_store_is_made_once_and_holds_the_scenes(store, folder):
    again = build_store(folder, SCHEDULE.scenes)
    assert np.array_equal(again.patches, store.patches)
    scene = train_shapes.training_scene(scenes.TRAIN_SEEDS[7])
    # Patch 15 is row 1, column 1; its pixels stand channel by channel.
    expected = scene.image[16:32, 16:32].transpose(2, 0, 1).reshape(-1)
    assert np.array_equal(store.patches[7, 15], expected)
    assert store.contents[7].objects == scene.objects


def test_a_batch_shows_parts_of_scenes_or_of_their_mirror_images(store):
    schedule = Schedule(steps=1, batch=8, scenes=24, phases=((1.0, 196),))
    patches, at, _ = batch(store, schedule, 0)
    images = [scenes_image(store, index) for index in range(24)]
    mirrored = 0
    for shown, places in zip(patches.numpy(), at.numpy(), strict=True):
        canvas = np.zeros((224, 224, 3), dtype=np.uint8)
        for patch, place in zip(shown, places, strict=True):
            row, column = divmod(int(place), 14)
            pixels = patch.reshape(3, 16, 16).transpose(1, 2, 0)
            canvas[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = pixels
        assert any(np.array_equal(canvas, i) or np.array_equal(canvas, i[:, ::-1]) for i in images)
        mirrored += any(np.array_equal(canvas, i[:, ::-1]) for i in images)
    assert 0 < mirrored < 8


def scenes_image(store, index):
    tiles = store.patches[index].reshape(14, 14, 3, 16, 16).transpose(0, 3, 1, 4, 2)
    return tiles.reshape(224, 224, 3)


def test_an_epoch_shows_every_scene_once(store, monkeypatch):
    schedule = Schedule(steps=3, batch=8, scenes=24)
    seen = []
    monkeypatch.setattr(
        train_shapes.captions, "caption", lambda content, stream: seen.append(id(content)) or "x"
    )
    for step in range(3):
        batch(store, schedule, step)
    assert sorted(seen) == sorted(id(content) for content in store.contents)


def test_captions_are_written_anew_in_every_epoch(store):
    schedule = Schedule(steps=300, batch=24, scenes=24)
    first, second = (sorted(batch(store, schedule, step)[2]) for step in (0, 1))
    assert first != second


def test_open_clip_loads_the_checkpoint_and_agrees(exported, trained):
    loaded = open_clip.create_model(f"local-dir:{exported}").eval()
    assert isinstance(loaded, open_clip.CLIP)
    scene = scenes.scene(scenes.VALIDATION_SEEDS[0])
    model, tokenizer = trained[0], CaptionTokenizer()
    # open_clip's own way: the whole image, normalised, and the whole context of 77.
    image = torch.from_numpy(scene.image).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(x)[:, None, None] for x in (shapes_model.MEAN, shapes_model.STD))
    texts = ["a zebra on grass.", "a photo of the cool red apple."]
    with torch.no_grad():
        ours = shapes_model.encode_patches(
            model,
            torch.from_numpy(shapes_model.to_patches(scene.image))[None],
            torch.arange(196)[None],
        )
        theirs = loaded.encode_image((image - mean) / std)
        # The checkpoint is in half precision: 2^-11 of each weight.
        assert F.cosine_similarity(ours, theirs).min() > 0.9999
        ours = shapes_model.encode_rows(model, tokenizer(texts))
        theirs = loaded.encode_text(open_clip.get_tokenizer("ViT-B-32")(texts))
        assert F.cosine_similarity(ours, theirs).min() > 0.9999


def test_the_checkpoint_has_every_row_and_only_used_ones_filled(exported):
    loaded = open_clip.create_model(f"local-dir:{exported}")
    rows = loaded.token_embedding.weight
    assert rows.shape == (49_408, 128)
    filled = rows.abs().sum(dim=1).nonzero().flatten()
    assert torch.equal(filled, CaptionTokenizer().used)
    assert (exported / "open_clip_model.safetensors").stat().st_size <= 20_000_000


def test_every_caption_and_prompt_is_in_the_vocabulary(store):
    tokenizer = CaptionTokenizer()
    schedule = Schedule(steps=300, batch=24, scenes=24)
    for step in range(40):
        tokenizer(batch(store, schedule, step)[2])
    names = [*concepts.OBJECTS, *concepts.FINE_CLASSES, *concepts.BACKGROUNDS]
    for frame in (*captions.SHAPES_FRAMES, *captions.IMAGENET_FRAMES):
        tokenizer([frame.format(name) for name in names])
    with pytest.raises(ValueError, match="token"):
        tokenizer(["a photo of a hippopotamus."])


def test_the_rate_and_the_phases_go_by_steps():
    schedule = Schedule(steps=1000)
    assert schedule.rate(0) == pytest.approx(1e-3 / 200)
    assert schedule.rate(200) == pytest.approx(1e-3)
    assert schedule.rate(600) == pytest.approx(0.5e-3)
    assert 0 < schedule.rate(999) < 1e-8
    assert [schedule.kept(step) for step in (0, 779, 780, 899, 900, 999)] == [
        49, 49, 98, 98, 196, 196,
    ]  # fmt: skip


def test_no_pixel_label_reaches_the_training():
    for module in (train_shapes, shapes_model, shapes_card, shapes_views):
        assert ".label" not in inspect.getsource(module)


def test_the_card_says_what_was_measured(exported, monkeypatch):
    every = captions.templates
    monkeypatch.setattr(captions, "templates", lambda name: every(name)[:2])  # quick
    record = {"recipe": asdict(SCHEDULE), "losses": [[6, 2.0]], "seconds": 60.0, "threads": 1}
    (exported / "training.json").write_text(json.dumps(record))
    figures = shapes_card.write_card(exported, single=6, many=6)
    for name in ("shapes", "imagenet80"):
        assert all(0 <= right <= asked == 6 for right, asked in figures[name].values())
        # Six scenes: the truth is nearly always, but not by rule, among five of six.
        assert figures[name]["image_to_text_5"][0] >= figures[name]["image_to_text_1"][0]
    text = (exported / "README.md").read_text()
    assert "ImageNet's 80 templates" in text and "48 in all" in text
    assert "Training loss" in (exported / "loss.svg").read_text()
    assert "box or position is used" in text and "## Trials" not in text
    second = record | {
        "recipe": asdict(replace(SECOND, start="ab" * 32, tower=Tower(8, 176, 44))),
        "figures": figures,
    }
    trials = [{"trial": "plain", "number": 66.9}]
    text = shapes_card.card(second | {"trials": trials, "before": [record]})
    assert text.index("### Part 1") < text.index("48 in all") < text.index("### Part 2")
    assert "8 blocks, width 176, 4 heads" in text
    assert "sha256 ababababab" in text and "windows of 6 to 14 patches" in text
    assert "| plain | 66.9 |" in text and "box or position is used" not in text


def test_the_command_trains_exports_and_asks_for_the_card(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(shapes_card, "write_card", asked.append)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)  # is global
    store, out = tmp_path / "store", tmp_path / "out"
    where = ["--steps=1", "--scenes=128", f"--store={store}", f"--out={out}"]
    train_shapes.main(where)
    record = json.loads((out / "training.json").read_text())
    (first,) = record["before"]
    for part, expected in ((first, FIRST), (record, SECOND)):
        assert [step for step, _ in part["losses"]] == [1] and part["threads"] == 1
        recipe = replace(expected, steps=1, scenes=128, start=part["recipe"]["start"])
        assert Schedule.of(part["recipe"]) == recipe
    weights = (out / "open_clip_model.safetensors").read_bytes()
    begun = (store / "part-1" / "open_clip_model.safetensors").read_bytes()
    assert record["recipe"]["start"] == hashlib.sha256(begun).hexdigest() != ""
    assert first["recipe"]["start"] == "" and begun != weights
    train_shapes.main(where)  # finished: only exports again
    assert capsys.readouterr().out.count("going on from step 1") == 2
    assert (out / "open_clip_model.safetensors").read_bytes() == weights
    assert asked == [out, out]


def test_a_second_part_begins_at_the_weights_of_the_first(store, folder, exported):
    start = {
        name: weight.half()
        for name, weight in train(store, SCHEDULE, folder / "whole.pt")[0].state_dict().items()
    }
    schedule = replace(SCHEDULE, steps=3, learning_rate=0.0)
    model, _ = train(store, schedule, folder / "still.pt", start=exported)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight.half(), start[name]), name


def test_wilson_interval():
    # Newcombe (1998), table I: 81 of 263, and the edge 0 of 20.
    assert shapes_card.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert shapes_card.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_the_shipped_checkpoint_is_of_this_recipe_and_knows_the_objects():
    folder = descent.ROOT / "assets" / "shapes_clip"
    record = json.loads((folder / "training.json").read_text())
    (first,) = record["before"]
    for part, expected in ((first, FIRST), (record, SECOND)):
        assert Schedule.of(part["recipe"]) == replace(expected, start=part["recipe"]["start"])
        assert part["losses"][-1][0] == expected.steps
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    # Other seeds than the card's, so that the card is not its own witness.
    seeds = scenes.VALIDATION_SEEDS[5_000_000:5_000_060]
    alone = [scenes.scene(seed, count=1) for seed in seeds]
    truth = torch.tensor([concepts.FINE[scene.objects[0]].object for scene in alone])
    with torch.no_grad():
        images = shapes_card.encode_scenes(model, alone)
        names = shapes_card.encode_names(model, concepts.OBJECTS, captions.SHAPES_FRAMES)
    right = ((images @ names.T).argmax(dim=1) == truth).float().mean()
    right_on_card, asked = record["figures"]["shapes"]["objects"]
    assert right > right_on_card / asked - 0.1
