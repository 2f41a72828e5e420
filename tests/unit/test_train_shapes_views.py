"""Windows of scenes: what they show, what their captions name, and where their patches stand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cliptrase.data.read.crop import crop_image
from cliptrase.model.vision import resized
from cliptrase.shapes import captions, concepts, scenes
from cliptrase.shapes import model as shapes_model
from cliptrase.shapes.model import CaptionTokenizer, Tower, to_patches
from cliptrase.shapes.stream import Stream
from cliptrase.shapes.train import Schedule, Store, batch, loss_of, training_scene, waits
from cliptrase.shapes.views import View, Window, content, shown, window

WINDOWS = (View(14, 6, 10), View(21, 6, 12))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made():
    return [training_scene(seed) for seed in scenes.TRAIN_SEEDS[:60]]


@pytest.fixture(scope="module")
def store(made):
    return Store(
        np.stack([to_patches(scene.image) for scene in made]),
        [captions.Content(scene.objects, scene.background) for scene in made],
        [scene.things for scene in made],
    )


@pytest.fixture(scope="module")
def model():
    return shapes_model.new_model(CaptionTokenizer(), 1, Tower(3, 32, 16))


@pytest.mark.parametrize("view", WINDOWS)
def test_windows_lie_in_the_grid_and_have_every_size(view):
    stream = Stream(1)
    drawn = [window(view, stream) for _ in range(500)]
    assert {at.side for at in drawn} == set(range(view.smallest, view.largest + 1))
    assert min(at.row for at in drawn) == min(at.column for at in drawn) == 0
    assert max(at.row + at.side for at in drawn) == view.grid
    assert max(at.column + at.side for at in drawn) == view.grid


@pytest.mark.parametrize("grid", [14, 21])
def test_a_window_shows_the_patches_that_the_benchmark_shows_at_that_size(made, grid):
    at, places = Window(2, 5, 7), np.array([0, 9, 48])
    image = crop_image(Image.fromarray(made[0].image), grid * 16)
    expected = [
        image[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16].transpose(2, 0, 1)
        for row, column in ((2, 5), (3, 7), (8, 11))
    ]
    patches = shown(to_patches(made[0].image), at, grid, places)
    assert np.abs(patches - np.stack(expected).reshape(3, -1).astype(int)).max() <= 1
    assert at.cells(places, grid).tolist() == [2 * grid + 5, 3 * grid + 7, 8 * grid + 11]


@pytest.mark.parametrize("view", WINDOWS)
def test_captions_of_windows_name_what_their_pixels_show(made, view):
    stream, named, truly = Stream(2), 0, 0
    plain, told = 0, 0
    unit = scenes.SIZE / view.grid
    for scene in made:
        at = window(view, stream)
        seen = content(scene, scene.things, at, view.grid)
        top, left, side = (round(each * unit) for each in at)
        pixels = scene.label[top : top + side, left : left + side].ravel()
        share = np.bincount(pixels, minlength=256) / len(pixels)
        things = {*seen.objects} | ({seen.background} - {None})
        assert things and set(seen.objects) <= set(scene.objects)
        named += len(things)
        truly += sum(share[raw] > 0.005 for raw in things)
        large = [raw for raw in (*scene.objects, scene.background) if share[raw] > 0.25]
        plain += len(large)
        told += sum(raw in things for raw in large)
    assert truly / named > 0.95 and told / plain > 0.95


def test_a_caption_without_a_background_names_an_object():
    only = captions.Content((0,), None)
    texts = [captions.caption(only, Stream(seed)) for seed in range(100)]
    assert all("zebra" in text for text in texts)
    assert not any(place in text for text in texts for place in concepts.BACKGROUNDS)
    assert captions.full(only) == "black zebra"


def test_a_larger_grid_has_the_positions_that_a_pass_gives_it(model):
    own = model.visual.positional_embedding[1:]
    assert torch.equal(shapes_model.positions(model, 14), own)
    there = resized(own, (14, 14), (21, 21))
    assert torch.equal(shapes_model.positions(model, 21), there)


def test_a_step_of_windows_learns_positions_and_captions(store, model):
    schedule = Schedule(steps=2, batch=12, scenes=60, views=WINDOWS, tower=Tower(3, 32, 16))
    for step, view in enumerate(WINDOWS):
        patches, at, texts = batch(store, schedule, step)
        assert patches.shape == (12, 36, 768)  # of the smallest window, all
        assert at.max() < view.grid**2
        rows = CaptionTokenizer()(texts)
        loss_of(model, patches, at, rows, view.grid).backward()
        gradient = model.visual.positional_embedding.grad
        assert gradient is not None and gradient.abs().sum() > 0


def test_cls_waits_in_some_images_and_an_ordinary_model_is_left(model):
    schedule = Schedule(steps=4, batch=400, tower=Tower(3, 32, 16), late=1.0)
    first, half = (waits(schedule, step) for step in (0, 2))
    assert first is not None and half is not None and not first.any()
    assert set(half.tolist()) == {0, 1, 2}
    # Those that never wait, half, and a third of the others.
    assert (half == 0).float().mean() == pytest.approx(2 / 3, abs=0.08)
    assert waits(Schedule(), 0) is None
    patches = torch.randint(0, 255, (3, 5, 768), dtype=torch.uint8)
    at = torch.arange(5).expand(3, -1)
    visual = model.visual
    with torch.no_grad():
        found = shapes_model.encode_patches(model, patches, at, waits=torch.arange(3))
        plain = shapes_model.encode_patches(model, patches, at)
        assert torch.allclose(found[0], plain[0], atol=1e-5)
        assert not torch.allclose(found[1:], plain[1:], atol=1e-3)
        # The third reads in the last block alone: what [CLS] is at first, through that block.
        kept: list[torch.Tensor] = []
        hook = visual.transformer.resblocks[2].register_forward_pre_hook(
            lambda _, given: kept.append(given[0])
        )
        shapes_model.encode_patches(model, patches, at, waits=torch.arange(3))
        hook.remove()
        cls = visual.ln_pre(visual.class_embedding + visual.positional_embedding[0])
        assert torch.allclose(kept[0][2, 0], cls, atol=1e-6)
