"""Protocol slide against a slow reference: windows, averages, synonyms, threshold, soft vote.

The model is random with a fixed seed; the reference encodes every window with NumPy in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import pytest
import slow_reference
import torch
from open_clip.model import CLIP
from PIL import Image
from slow_pamr import refined
from slow_reference import EMBED, HEADS, LAYERS, PATCH, TRAINED, WIDTH, WORDS, Reference, unit
from slow_slide import averaged, classified, probabilities
from tests import objects

from cliptrase.config.method import Method
from cliptrase.data.read import crop
from cliptrase.data.read.opencv import linear
from cliptrase.evaluate import protocols
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.jobs import Job
from cliptrase.model.load import Clip
from cliptrase.runs.provenance import Stages

WINDOW, SHORT_SIDE, STRIDE = 80, 120, 40
OWNER = [0, 0, 1, 1, 2, 3, 3, 3]  # two background words, then three classes, two with synonyms
SCLIP = objects.method("cliptrase", {"attention.terms": ["qq", "kk"], "regions": None})
# (width, height) of the picture, the longest side of the protocol
PICTURES = {
    "lying": ((163, 121), 2048),
    "standing, made smaller": ((130, 190), 2048),
    "windows that just fit": ((60, 80), 2048),  # 120 × 160
    "lower than a window": ((300, 90), 203),  # 203 × 61: windows of 61 rows, padded to 64
}


@pytest.fixture(scope="module")
def clip() -> Clip:
    generator = torch.Generator().manual_seed(11)
    tower = {
        "image_size": TRAINED * PATCH, "layers": LAYERS, "width": WIDTH,
        "head_width": WIDTH // HEADS, "patch_size": PATCH,
    }  # fmt: skip
    model = CLIP(EMBED, tower, {"width": 16, "heads": 1, "layers": 1}, quick_gelu=True)
    model.eval().requires_grad_(False)
    for name, parameter in model.visual.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            gain = 1.5 if "in_proj" in name else 0.5
            parameter.copy_(noise * gain * parameter.shape[-1] ** -0.5)
        else:
            parameter.copy_(noise * 0.1 + (1.0 if name.endswith("weight") else 0.0))
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return Clip(model, open_clip.SimpleTokenizer(), torch.device("cpu"), "random", mean, std)


@pytest.fixture(scope="module", params=PICTURES)
def scene(request: pytest.FixtureRequest) -> tuple[np.ndarray, int]:
    """Flat shapes with a little noise (H, W, 3) uint8, and the longest side."""
    (width, height), longest = PICTURES[request.param]
    rng = np.random.default_rng(width)
    out = np.empty((height, width, 3))
    out[:] = rng.uniform(0, 255, 3)
    for _ in range(8):
        top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
        out[top : top + 45, left : left + 35] = rng.uniform(0, 255, 3)
    out += rng.normal(0, 3, out.shape)
    return out.clip(0, 255).astype(np.uint8), longest


def reference(clip: Clip, part: np.ndarray, text: np.ndarray, method: Method) -> Reference:
    """Of one window, whatever its size."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(slow_reference, "ROWS", part.shape[1] // PATCH)
        patched.setattr(slow_reference, "COLUMNS", part.shape[2] // PATCH)
        return Reference(clip, part, text, method)


def slid(
    clip: Clip,
    scene: tuple[np.ndarray, int],
    encode: Callable[[np.ndarray], np.ndarray],
    **more: Any,
) -> np.ndarray:
    """The slow reference's averaged values (M, H, W) of what `encode` makes of each window."""
    picture, longest = scene
    return averaged(
        picture, encode, window=WINDOW, short_side=SHORT_SIDE, stride=STRIDE, patch=PATCH,
        resize=linear,
        mean=clip.mean, std=clip.std, longest=longest, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def text(clip: Clip, scene: tuple[np.ndarray, int]) -> np.ndarray:
    """(8, E) normalised: what sets eight far patches of the picture apart, and noise."""
    found: list[np.ndarray] = []

    def encode(part: np.ndarray) -> np.ndarray:
        found.append(reference(clip, part, np.eye(WORDS, EMBED), SCLIP).features[1:])
        return np.zeros((1, *part.shape[1:]))

    slid(clip, scene, encode)
    features = np.concatenate(found)
    apart = features - features.mean(axis=0)
    chosen = [int(np.linalg.norm(apart, axis=1).argmax())]
    while len(chosen) < WORDS:
        nearest = (unit(apart) @ unit(apart[chosen]).T).max(axis=1)
        chosen.append(int(nearest.argmin()))
    noise = np.random.default_rng(6).normal(0, 0.5 / EMBED**0.5, (WORDS, EMBED))
    return unit(unit(apart[chosen]) + noise).astype(np.float32)


@pytest.fixture(scope="module")
def expected(clip: Clip, scene: tuple[np.ndarray, int], text: np.ndarray) -> np.ndarray:
    """Plain cosines (M, H, W) without regions, by the slow reference."""
    return slid(clip, scene, lambda part: reference(clip, part, text, SCLIP).logits / 100)


def job(text: np.ndarray, method: Method, scale: float, threshold: float) -> Job:
    words = Text(torch.from_numpy(text), torch.tensor(OWNER))
    return Job(method, scale, "target", "words", words, threshold)


def ours(
    clip: Clip, scene: tuple[np.ndarray, int], jobs: dict[str, Job], batch_size: int = 1
) -> dict[str, np.ndarray]:
    picture, longest = scene
    with pytest.MonkeyPatch.context() as patched, torch.inference_mode():
        patched.setattr(crop, "LONGEST", longest)
        protocol = protocols.Slide(WINDOW, SHORT_SIDE, STRIDE)
        shown = protocol.show(Image.fromarray(picture))
        found = protocol.maps(clip, [shown], jobs, batch_size, Stages())
    return {name: maps.classes[0] for name, maps in found.items()}


def logits_of(
    clip: Clip, scene: tuple[np.ndarray, int], text: np.ndarray, method: Method
) -> np.ndarray:
    """Our averaged logits (M, H, W)."""
    parts: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patched:

        def kept(*arguments: Any) -> list[torch.Tensor]:
            parts.extend(slide_averaged(*arguments))
            return parts

        slide_averaged = protocols.averaged
        patched.setattr(protocols, "averaged", kept)
        ours(clip, scene, {"": job(text, method, 40.0, 0.0)})
    return torch.cat(parts, dim=1)[0].numpy()


def test_averaged_logits(clip, scene, text, expected):
    found = logits_of(clip, scene, text, SCLIP)
    assert found.shape == (WORDS, *scene[0].shape[:2])
    np.testing.assert_allclose(found, expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize("scene", ["lower than a window"], indirect=True)
def test_pamr_comes_after_the_average_and_before_the_picture_s_own_size(clip, scene, text):
    """And before the threshold: the probabilities are of refined logits."""
    method = objects.changed(SCLIP, {"pamr": {"steps": 2, "dilations": [3]}})
    wanted = slid(
        clip,
        scene,
        lambda part: reference(clip, part, text, SCLIP).logits / 100,
        refine=lambda maps, pixels: refined(maps, pixels, 2, [3]),
    )
    np.testing.assert_allclose(logits_of(clip, scene, text, method), wanted, atol=1e-5, rtol=0)
    classes = probabilities(wanted, OWNER, 40.0)
    half = float(np.median(classes.max(axis=0)))
    labels, close = classified(classes, half)
    jobs = {name: job(text, own, 40.0, half) for name, own in (("", method), ("plain", SCLIP))}
    found = ours(clip, scene, jobs)
    np.testing.assert_array_equal(found[""][~close], labels[~close])
    assert (found[""] != found["plain"]).any()


@pytest.mark.parametrize("scale", [10.0, 40.0])
def test_classes(clip, scene, text, expected, scale):
    """Synonyms, and the threshold at which half of the pixels become background, and none."""
    classes = probabilities(expected, OWNER, scale)
    half = float(np.median(classes.max(axis=0)))
    for threshold in (half, 0.0):
        wanted, close = classified(classes, threshold)
        found = ours(clip, scene, {"": job(text, SCLIP, scale, threshold)})[""]
        assert found.dtype == np.int16 and close.mean() < 0.02
        np.testing.assert_array_equal(found[~close], wanted[~close])
        assert len(np.unique(found)) > 2
        assert 0.45 < (classes.max(axis=0) < threshold).mean() < 0.55 or threshold == 0


def test_runs_that_share_logits_are_as_alone(clip, scene, text):
    jobs = {
        f"{name} {scale} {threshold}": job(text, method, scale, threshold)
        for name, method in (("sclip", SCLIP), ("soft", soft(0.7)))
        for scale, threshold in ((10.0, 0.4), (10.0, 0.6), (20.0, 0.6), (40.0, 0.0))
    }
    together = ours(clip, scene, jobs)
    for name, one in jobs.items():
        np.testing.assert_array_equal(together[name], ours(clip, scene, {name: one})[name])
    assert len({found.tobytes() for found in together.values()}) == len(jobs)


@pytest.mark.parametrize("batch_size", [2, 3, 64])
def test_windows_in_batches(clip, scene, text, batch_size):
    jobs = {"soft": job(text, soft(0.7), 40.0, 0.2), "plain": job(text, SCLIP, 40.0, 0.2)}
    alone, found = ours(clip, scene, jobs), ours(clip, scene, jobs, batch_size)
    for name in jobs:
        assert (alone[name] != found[name]).mean() <= 1e-3


def test_the_first_name_wins_a_tie(clip, scene, text, expected):
    doubled = text.copy()
    doubled[5] = doubled[3]  # a name of class 3 means the same as one of class 1
    found = ours(clip, scene, {"": job(doubled, SCLIP, 40.0, 0.0)})[""]
    logits = expected.copy()
    logits[5] = -1
    wanted, close = classified(probabilities(logits, OWNER, 40.0), 0.0)
    np.testing.assert_array_equal(found[~close], wanted[~close])


def test_a_pixel_exactly_at_the_threshold_keeps_its_class(clip, scene):
    alike = np.tile(unit(np.ones((1, EMBED))), (8, 1)).astype(np.float32)
    last = Text(torch.from_numpy(alike), torch.tensor([3] * 8))  # eight names, 1/8 each
    for threshold, expected in ((0.125, 3), (0.1251, 0)):
        one = Job(SCLIP, 40.0, "target", "words", last, threshold)
        assert (ours(clip, scene, {"": one})[""] == expected).all()


def soft(eps: float) -> Method:
    """SCLIP's features; in each window regions, whose logits are their means."""
    changes = {"attention.terms": ["qq", "kk"], "regions.eps": eps, "regions.vote": "soft"}
    return objects.method("cliptrase", changes)


def test_soft_vote_inside_each_window(clip, scene, text, expected):
    """Every window is clustered alone, and its regions' means are what is averaged."""
    distances: list[np.ndarray] = []

    def rows(part: np.ndarray) -> np.ndarray:
        w = reference(clip, part, text, soft(0.7)).w
        m = np.maximum(w[1:, 1:] - w[0, 1:], 0)
        distances.append(np.linalg.norm(m[:, None] - m[None], axis=-1)[np.triu_indices(len(m), 1)])
        return np.zeros((1, *part.shape[1:]))

    slid(clip, scene, rows)
    ordered = np.sort(np.concatenate(distances))
    few = ordered[len(ordered) // 20 : len(ordered) // 12]
    widest = int(np.diff(few).argmax())
    method = soft(float(few[widest : widest + 2].mean()))  # no distance is near it
    regions: list[int] = []

    def encode(part: np.ndarray) -> np.ndarray:
        one = reference(clip, part, text, method)
        logits = one.logits / 100
        regions.append(len(one.maps))
        if not one.maps:
            return logits
        region = np.stack(one.maps).argmax(axis=0)
        out = np.empty_like(logits)
        for number in range(len(one.maps)):
            own = region == number
            out[:, own] = logits[:, own].mean(axis=1, keepdims=True)
        return out

    wanted = slid(clip, scene, encode)
    found = logits_of(clip, scene, text, method)
    assert max(regions) > 1
    apart = np.abs(found - wanted).max(axis=0)
    assert np.median(apart) < 1e-6
    # a pixel that rounding moves over a border moves two regions' means by its share of them
    assert np.quantile(apart, 0.95) < 1e-4
    far = apart > 1e-3
    assert far.mean() < 0.01
    assert (np.abs(found - expected).max(axis=0) > 1e-3).mean() > 0.2
    classes = probabilities(wanted, OWNER, 40.0)
    labels, close = classified(classes, 0.15)
    ours_too = ours(clip, scene, {"": job(text, method, 40.0, 0.15)})[""]
    clear = ~close & ~far
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(ours_too[clear], labels[clear])
