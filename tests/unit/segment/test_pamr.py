"""PAMR against its formula, pixel by pixel; in the graph, and as a key of any method."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from random_clips import PATCH, pictures, random_clip, words
from slow_pamr import refined
from slow_slide import upsampled
from tests import objects
from tests.objects import listed_text

from cliptrase import config
from cliptrase.config.method import Method, Pamr
from cliptrase.errors import UserError
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.segment import pamr
from cliptrase.segment.pamr import Refinement

FEW = {"steps": 3, "dilations": [2, 5]}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def two_colours(height: int, width: int) -> torch.Tensor:
    picture = noise(3, 1, 1).repeat(1, height, width)
    picture[:, :, width // 2 :] = noise(3, 1, 1, seed=1)
    return picture


PICTURES = {
    "noise": noise(3, 9, 14),
    "two colours": two_colours(11, 8),
    "constant": torch.full((3, 7, 6), 0.3),  # σ = 0
    "one pixel": noise(3, 1, 1),
    "one row": noise(3, 1, 9),
    "grey levels": (noise(3, 8, 8) > 0).float(),
}


@pytest.mark.parametrize("steps, dilations", [(1, [1]), (2, [8, 16]), (10, [1, 3])])
@pytest.mark.parametrize("name", PICTURES)
def test_pamr_is_its_formula(name, steps, dilations):
    picture = PICTURES[name]
    maps = 100 * noise(5, *picture.shape[1:], seed=2)
    options = Pamr.model_validate({"steps": steps, "dilations": dilations})
    ours = Refinement.of(picture, options)(maps)
    slow = refined(maps.numpy(), picture.numpy(), steps, dilations)
    np.testing.assert_allclose(ours, slow, rtol=0, atol=1e-5 * np.abs(slow).max())
    assert name == "one pixel" or not np.allclose(slow, maps)


def test_the_weights_are_positive_and_a_constant_map_stays():
    """So a refined logit lies between the smallest and the largest of its name."""
    refine = Refinement.of(noise(3, 20, 30), Pamr.model_validate(FEW))
    assert (refine.weights >= 0).all()
    torch.testing.assert_close(refine.weights.sum(dim=0), torch.ones(20, 30))
    torch.testing.assert_close(refine(torch.full((1, 20, 30), 7.0)), torch.full((1, 20, 30), 7.0))


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_names_at_once_change_no_bit(at_once, monkeypatch):
    refine = Refinement.of(noise(3, 37, 43), Pamr.model_validate(FEW))
    maps = noise(70, 37, 43, seed=3)
    usual = refine(maps)
    monkeypatch.setattr(pamr, "AT_ONCE", at_once)
    assert torch.equal(refine(maps), usual)
    parts = [refine(some) for some in maps.split(8)]
    assert torch.equal(torch.cat(parts), usual)


# ---------------------------------------------------------------- in the graph


@pytest.fixture(scope="module")
def clip():
    return random_clip(3)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """(3, 3, 24, 32): shapes, noise and one colour, of 3 × 4 patches."""
    return pictures(np.random.default_rng(5), 3)[:, :, : 3 * PATCH, : 4 * PATCH].contiguous()


@pytest.fixture(scope="module")
def text(clip, pixels) -> Text:
    """Four classes and three background words."""
    patches = Graph(clip, pixels).patches(objects.method("clip"))
    return listed_text(words(np.random.default_rng(6), patches.flatten(0, 1), 7), 4)


def method(vote: str) -> Method:
    """CLIP's own features, so that words differ from patch to patch, and a vote."""
    own = objects.method("clip").attention
    return objects.method("cliptrase", {"pamr": FEW, "attention": own, "regions.vote": vote})


def with_regions(clip, pixels: torch.Tensor, regions: torch.Tensor) -> Graph:
    """A graph whose methods have these regions: so small pictures have too few of their own."""
    graph = Graph(clip, pixels)
    graph.regions = lambda _: regions
    return graph


@pytest.fixture(scope="module")
def regions(pixels) -> torch.Tensor:
    """(3, 24, 32): squares of 4 × 4 pixels in up to 30 regions or none; in the last image none."""
    squares = torch.randint(-1, 30, (3, 6, 8), generator=torch.Generator().manual_seed(8))
    squares[1].clamp_(max=1)
    squares[2] = -1
    return squares.repeat_interleave(4, 1).repeat_interleave(4, 2)


@pytest.fixture(scope="module")
def slow_logits(clip, pixels, text) -> np.ndarray:
    """Refined logits (B, M, H, W)."""
    logits = Graph(clip, pixels).logits(method("none"), text, "words", 100.0)
    maps = [upsampled(each.numpy(), *pixels.shape[2:]) for each in logits]
    pairs = zip(maps, pixels.numpy(), strict=True)
    return np.stack([refined(own, picture, **FEW) for own, picture in pairs])


@pytest.mark.parametrize("vote", ["none", "hard", "soft"])
def test_a_prediction_is_that_of_refined_logits(clip, pixels, text, regions, slow_logits, vote):
    """The largest refined logit at every pixel, and the votes of the regions on them."""
    graph, owner = with_regions(clip, pixels, regions), text.owner.numpy()
    ours = graph.prediction(method(vote), text, "words", 100.0).numpy()
    plain = objects.changed(method(vote), {"pamr": None})
    assert (graph.prediction(plain, text, "words", 100.0).numpy() != ours).any()
    for image, slow in enumerate(slow_logits):
        ordered = np.sort(slow, axis=0)
        close = ordered[-1] - ordered[-2] < 1e-3
        expected = owner[slow.argmax(axis=0)]
        for region in range(30 if vote != "none" else 0):
            inside = regions[image].numpy() == region
            if inside.any() and vote == "soft":
                expected[inside] = owner[slow[:, inside].mean(axis=1).argmax()]
            elif inside.any():
                expected[inside] = np.bincount(expected[inside]).argmax()
        assert close.mean() < 0.02
        assert ((ours[image] == expected) | close).all()


@pytest.mark.parametrize("vote", ["none", "hard", "soft"])
def test_a_batch_is_its_images_and_encoded_pictures_agree(clip, pixels, text, regions, vote):
    chosen, together = method(vote), with_regions(clip, pixels, regions)
    maps = together.prediction(chosen, text, "words", 100.0)
    assert torch.equal(together.encode(chosen).classify(text), maps)
    logits = together.logits(chosen, text, "words", 100.0)
    for image in range(len(pixels)):
        one = slice(image, image + 1)
        alone = with_regions(clip, pixels[one], regions[one])
        alone.logits = lambda *_, own=logits[one]: own  # those of products of a batch
        assert torch.equal(alone.prediction(chosen, text, "words", 100.0)[0], maps[image])


def test_a_picture_of_one_patch(clip, text):
    one = noise(1, 3, PATCH, PATCH)
    graph = Graph(clip, one)
    found = graph.prediction(method("none"), text, "words", 100.0)
    logits = graph.logits(method("none"), text, "words", 100.0)[0, :, 0, 0]
    assert (found == text.owner[logits.argmax()]).all()


def test_a_name_that_is_nowhere_the_largest_may_be_so_after():
    """So no name is left out before."""
    maps = torch.tensor([[9.0, -9.0, 9.0], [-9.0, 9.0, -9.0], [8.0, 8.0, 8.0]])[:, None]
    refine = Refinement.of(
        torch.zeros(3, 1, 3), Pamr.model_validate({"steps": 1, "dilations": [1]})
    )
    assert 2 not in maps.argmax(dim=0)
    assert (pamr.classify(maps[None], torch.arange(3), [refine]) == 2).all()


# ---------------------------------------------------------------- as a key


def test_it_is_left_out_of_identities_and_short_ways_are_one_run():
    plain = config.resolve(["benchmark=shapes", "method=naclip"])
    assert "pamr" not in json.dumps(plain.identity)
    ways = ["true", "{}", "{steps: 10, dilations: [8, 16]}", "{dilations: [16, 8]}"]
    runs = [config.resolve(["benchmark=shapes", "method=naclip", f"method.pamr={w}"]) for w in ways]
    assert len({run.name for run in runs} | {plain.name}) == 2
    assert runs[0].identity["method"]["pamr"] == {"steps": 10, "dilations": [8, 16]}
    assert ".pamr_dilations-8+16.pamr_steps-10." in runs[0].name


@pytest.mark.parametrize("name", sorted({*config.names("method")} - {"predictions"}))
def test_every_method_has_the_key(name):
    overrides = [f"method={name}", "method.pamr=true", "benchmark=shapes", "model=shapes_clip"]
    if name == "outside":
        overrides.append("method.file=tests/none.py")
    if name in ("outside", "cliptrase_unsupervised"):
        message = "no such file" if name == "outside" else "method.pamr: with method.unsupervised"
        with pytest.raises(UserError, match=message):
            config.resolve(overrides)
    else:
        assert config.resolve(overrides).method.pamr is not None


@pytest.mark.parametrize(
    "value, message",
    [
        ("{steps: 0}", "method.pamr.steps=0: must be a whole number, 1 to 100"),
        ("{steps: 101}", "method.pamr.steps=101: must be a whole number, 1 to 100"),
        ("{dilations: 8}", "method.pamr.dilations=8: must be a list of different whole numbers"),
        ("{dilations: []}", "must be a list of different whole numbers"),
        ("{dilations: [8, 8]}", "must be a list of different whole numbers"),
        ("{dilations: [0, 8]}", "must be a list of different whole numbers"),
        ("{dilations: [1.5]}", "must be a list of different whole numbers"),
        ("{dilations: [true]}", "must be a list of different whole numbers"),
        ("{dilatons: [8]}", "unknown key 'method.pamr.dilatons'; .*dilations"),
        ("10", "method.pamr=10: must be true, null, or {steps: 10"),
        ("false", "method.pamr=false: must be true, null, or {steps: 10"),
    ],
)
def test_what_cannot_be_is_one_message(value, message):
    with pytest.raises(UserError, match=message):
        config.resolve(["benchmark=shapes", "method=naclip", f"method.pamr={value}"])
