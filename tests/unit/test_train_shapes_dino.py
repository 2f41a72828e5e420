"""Training the embedded DINO: resumes bit for bit, exports what timm loads, never sees a label."""

import inspect
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import timm
import torch
from benchmarks import card_dino

from cliptrase.shapes import descent, scenes, train_dino
from cliptrase.shapes.stream import Stream
from cliptrase.shapes.train import build_store
from cliptrase.shapes.train_dino import Pair, Schedule, block, positions, sinkhorn, view, views

SCHEDULE = Schedule(steps=4, falling=2, batch=2, side=56, scenes=6, prototypes=8, warm_up=2)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes_dino")


@pytest.fixture(scope="module")
def store(folder):
    return build_store(folder, SCHEDULE.scenes)


@pytest.fixture(scope="module")
def trained(store, folder):
    return train_dino.train(store, SCHEDULE, folder / "whole.pt")


@pytest.fixture(scope="module")
def exported(trained, folder):
    train_dino.export(trained[0].vit, folder / "out")
    return folder / "out"


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(store, folder, trained):
    train_dino.train(store, SCHEDULE, folder / "parts.pt", stop=1)
    train_dino.train(store, SCHEDULE, folder / "parts.pt", stop=3)
    teacher, record = train_dino.train(store, SCHEDULE, folder / "parts.pt")
    for name, value in trained[0].state_dict().items():
        assert torch.equal(value, teacher.state_dict()[name]), name
    assert record["losses"] == trained[1]["losses"]


def test_the_teacher_follows_the_student_and_learns_by_no_gradient(store):
    pair = Pair(SCHEDULE)
    before = pair.teacher.vit.cls_token.clone()
    pair.step(*views(store, SCHEDULE, 0), 0)
    expected = 0.994 * before + 0.006 * pair.student.vit.cls_token
    assert torch.allclose(pair.teacher.vit.cls_token, expected, rtol=0, atol=1e-7)
    assert not torch.equal(pair.teacher.vit.cls_token, before)
    assert all(weight.grad is None for weight in pair.teacher.parameters())


def test_half_of_the_views_have_a_masked_block_one_of_each_pair(store):
    pixels, masked = views(store, Schedule(batch=4, side=112), 0)
    assert pixels.shape == (8, 3, 112, 112) and masked.shape == (8, 64)
    has_block = masked.any(dim=1)
    assert torch.equal(has_block[:4], torch.tensor([True, False, True, False]))
    assert torch.equal(has_block[:4], ~has_block[4:])


def test_a_block_is_a_rectangle_of_about_10_to_50_percent():
    shares = []
    for seed in range(200):
        mask = block(16, Stream(seed))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns)
        assert np.ptp(rows) + 1 == len(rows) and np.ptp(columns) + 1 == len(columns)
        shares.append(mask.mean())
    assert 0.08 < min(shares) < 0.15 and 0.45 < max(shares) < 0.53


class Middle(Stream):
    """A stream of middles: nothing of a view is changed but its size, and it is mirrored or not."""

    mirror = False

    def uniform(self, low=0.0, high=1.0):
        return (low + high) / 2

    def chance(self, probability):
        return self.mirror and probability == 0.5


@pytest.mark.parametrize("mirror", [False, True])
def test_a_view_without_change_is_a_resized_crop(mirror):
    image = torch.from_numpy(scenes.scene(3).image).permute(2, 0, 1)
    stream = Middle(0)
    stream.mirror = mirror
    side = round(224 * math.sqrt(0.7))
    start = (224 - side + 1) // 2
    crop = image[:, start : start + side, start : start + side].float()[None] / 255
    expected = torch.nn.functional.interpolate(crop, (56, 56), mode="bilinear", antialias=True)[0]
    expected = expected.flip(-1) if mirror else expected
    assert torch.allclose(view(image, 56, stream), expected, atol=1e-5)


def test_grey_views_are_grey_and_all_stay_in_range():
    image = torch.from_numpy(scenes.scene(3).image).permute(2, 0, 1)
    shown = torch.stack([view(image, 56, Stream(seed)) for seed in range(100)])
    assert shown.min() >= 0 and shown.max() <= 1
    grey = (shown.amax(dim=1) - shown.amin(dim=1)).amax(dim=(1, 2)) < 0.01
    assert 3 <= grey.sum() <= 20


def test_the_losses_are_those_of_a_slow_loop(store):
    pair, (pixels, masked) = Pair(SCHEDULE), views(store, SCHEDULE, 0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        of_cls, of_patches = pair.losses(pixels, masked)
        logits = pair.teacher.cosines(pair.teacher.tokens(pixels)) / 0.05
        answers = pair.student.cosines(pair.student.tokens(pixels, masked)) / 0.1
    targets = sinkhorn(logits[:, 0])
    # Views 0 and 2 show the first scene, 1 and 3 the second.
    pairs = ((0, 2), (2, 0), (1, 3), (3, 1))
    expected = [-(targets[a] * answers[b, 0].log_softmax(dim=0)).sum() for a, b in pairs]
    assert float(of_cls) == pytest.approx(float(np.mean(expected)), rel=2e-3)
    places = masked.nonzero().tolist()
    targets = sinkhorn(torch.stack([logits[image, 1 + patch] for image, patch in places]))
    expected = [
        -(target * answers[image, 1 + patch].log_softmax(dim=0)).sum()
        for target, (image, patch) in zip(targets, places, strict=True)
    ]
    assert float(of_patches) == pytest.approx(float(np.mean(expected)), rel=2e-3)


def test_sinkhorn_uses_every_prototype_alike_and_keeps_what_is_more_likely():
    logits = torch.randn(4000, 8) + torch.linspace(0, 6, 8)  # the last one wins nearly always
    assert logits.argmax(dim=1).bincount(minlength=8)[-1] > 2000
    q = sinkhorn(logits)
    assert torch.allclose(q.sum(dim=1), torch.ones(4000), atol=1e-5)
    assert torch.allclose(q.mean(dim=0), torch.full((8,), 1 / 8), rtol=0.05)
    # Two tokens' odds differ in q as in the softmax: rows and columns are only scaled.
    odds = (q[0, 0] * q[1, 1] / (q[0, 1] * q[1, 0])).log()
    expected = logits[0, 0] + logits[1, 1] - logits[0, 1] - logits[1, 0]
    assert float(odds) == pytest.approx(float(expected), abs=1e-3)


def test_positions_are_resized_as_dino_does_and_native_ones_left_alone():
    table = torch.randn(1, 257, 4)
    assert positions(table, 16) is table
    resized = positions(table, 8)
    assert resized.shape == (1, 65, 4) and torch.equal(resized[:, 0], table[:, 0])
    # A scale of (8 + 0.1) / 16, not 8 / 16: source places by output / scale.
    row = table[0, 1:, 0].reshape(16, 16).numpy().astype(np.float64)
    scale = 8.1 / 16

    def cubic(x, a=-0.75):
        x = abs(x)
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
        return near if x <= 1 else far if x < 2 else 0.0

    source = (3 + 0.5) / scale - 0.5
    weights = {place: cubic(source - place) for place in range(int(source) - 1, int(source) + 3)}
    expected = sum(a * b * row[i, j] for i, a in weights.items() for j, b in weights.items())
    assert float(resized[0, 1 + 3 * 8 + 3, 0]) == pytest.approx(expected, abs=1e-4)


def test_timm_loads_the_folder_and_agrees(exported, trained):
    loaded = timm.create_model(f"local-dir:{exported}", pretrained=True).eval()
    config = json.loads((exported / "config.json").read_text())
    built = timm.create_model(config["architecture"], pretrained=False, **config["model_args"])
    assert built.state_dict().keys() == loaded.state_dict().keys()
    pixels = train_dino.pixels([scenes.scene(scenes.VALIDATION_SEEDS[0])])
    with torch.no_grad():
        ours, theirs = trained[0].tokens(pixels), loaded.forward_features(pixels)
    # The file is in half precision: 2^-11 of each weight.
    assert theirs.shape == (1, 257, 192)
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=-1).min() > 0.9999
    assert (exported / "model.safetensors").stat().st_size <= 8_000_000


def test_no_label_and_no_caption_reaches_the_training():
    source = inspect.getsource(train_dino)
    assert ".label" not in source and ".contents" not in source and "caption(" not in source


def test_the_rate_falls_in_the_last_steps_only():
    schedule = Schedule(steps=1000, falling=200)
    assert schedule.rate(0) == pytest.approx(5e-4 / 100)
    assert schedule.rate(100) == schedule.rate(800) == pytest.approx(5e-4)
    assert schedule.rate(900) == pytest.approx(2.5e-4)
    assert 0 < schedule.rate(999) < 1e-7


def test_the_card_says_what_was_measured(exported, trained):
    record = trained[1] | {"recipe": asdict(SCHEDULE)}
    record["entropy"] = train_dino.entropies(trained[0], 0.05, count=2)
    assert 0 < record["entropy"]["cls"] <= math.log(8) + 1e-6
    (exported / "training.json").write_text(json.dumps(record))
    figures = card_dino.write_card(exported, many=4)
    for each in figures.values():
        assert len(each["ranking"]) == len(each["clusters"]) == 4
        assert all(0.3 < area <= 1 for area in each["ranking"])
    text = (exported / "README.md").read_text()
    assert "on 4 held-out scenes" in text and "6 scenes of" in text
    assert "Training loss" in (exported / "loss.svg").read_text()


def test_the_shipped_network_is_of_this_recipe_and_tells_classes_apart():
    folder = descent.ROOT / "assets" / "shapes_dino"
    record = json.loads((folder / "training.json").read_text())
    assert record["recipe"] == json.loads(json.dumps(asdict(Schedule())))
    assert record["losses"][-1][0] == Schedule().steps
    vit = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    # Other seeds than the card's, so that the card is not its own witness.
    made = [scenes.scene(seed) for seed in scenes.VALIDATION_SEEDS[5_000_000:5_000_010]]
    areas = card_dino.measure(vit.forward_features, made)["ranking"]
    on_card = record["figures"]["trained"]["ranking"]
    assert np.mean(areas) > np.mean(on_card) - 0.1
