"""SAM as this project runs it, against the released code with the same weights."""

import numpy as np
import pytest
import torch
from random_sams import SIDE, random_sam, released
from segment_anything import SamPredictor
from segment_anything.modeling import Sam as ReleasedSam

from cliptrase.config.method_regions import SamOptions
from cliptrase.model.sam import Sam, decode, embed, frame, framed_size
from cliptrase.segment.sam_regions import prompts, sam_regions, whole_masks

SIZES = ((48, 48), (32, 56), (80, 48), (200, 90), (64, 64))  # square, wide, tall, larger, no resize
CLOSE = 1e-5  # the two sum in different orders


@pytest.fixture(scope="module")
def sam() -> Sam:
    return random_sam()


@pytest.fixture(scope="module")
def oracle(sam) -> ReleasedSam:
    return released(sam)


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(h, w, 3) uint8: smooth colours, so that masks have shapes, and some noise."""
    rng = np.random.default_rng([seed, *size])
    rows, columns = np.indices(size)
    waves = np.stack([np.sin(rows / 9 + k) * np.cos(columns / 7 - k) for k in range(3)], axis=-1)
    return (127 + 100 * waves + rng.integers(-20, 20, waves.shape)).astype(np.uint8)


def predictor(oracle: ReleasedSam, pixels: np.ndarray) -> SamPredictor:
    """The released predictor, whose picture is set."""
    made = SamPredictor(oracle)
    made.set_image(pixels)
    return made


@pytest.mark.parametrize("size", SIZES)
def test_framed_pixels_are_the_released_codes_bit_for_bit(oracle, size):
    pixels = picture(size)
    ours, (height, width) = frame(pixels, SIDE)
    transform = predictor(oracle, pixels).transform
    resized = torch.as_tensor(transform.apply_image(pixels)).permute(2, 0, 1)
    assert resized.shape == (3, height, width)
    assert torch.equal(ours, oracle.preprocess(resized[None]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("multimask", [False, True])
def test_embeddings_masks_and_ious(sam, oracle, size, multimask):
    pixels, (h, w) = picture(size), (5, 4)
    framed, framed_to = frame(pixels, SIDE)
    theirs = predictor(oracle, pixels)
    embedding = embed(sam, framed)
    torch.testing.assert_close(embedding, theirs.get_image_embedding(), rtol=0, atol=CLOSE)
    clusters = np.random.default_rng(2).integers(-1, 4, h * w)
    points, labels = map(torch.from_numpy, prompts(clusters, (h, w), framed_to))
    masks, ious = decode(sam, embedding, points, labels, multimask=multimask)
    logits, scores, low = theirs.predict_torch(
        points.expand(len(labels), -1, -1), labels, None, None, multimask, return_logits=True
    )
    best = scores.argmax(dim=1)
    each = torch.arange(len(labels))
    torch.testing.assert_close(ious, scores[each, best], rtol=0, atol=CLOSE)
    torch.testing.assert_close(masks, low[each, best], rtol=0, atol=CLOSE)
    spread = masks.std(dim=0).max()
    assert spread > 1e-2, "the masks do not depend on the prompts"
    whole = whole_masks(masks, SIDE, framed_to, size)
    clear = logits[each, best].abs() > CLOSE
    assert torch.equal((whole > 0)[clear], (logits[each, best] > 0)[clear])
    assert clear.float().mean() > 0.999
    assert 0.02 < float((whole > 0).float().mean()) < 0.98


@pytest.mark.parametrize("size", SIZES)
def test_masks_are_resized_as_the_released_code_does(oracle, size):
    low = torch.randn(3, 1, SIDE // 2, SIDE // 2, generator=torch.Generator().manual_seed(3))
    framed = framed_size(size, SIDE)
    for out_size in (size, (30, 41)):
        expected = oracle.postprocess_masks(low, framed, out_size)[:, 0]
        assert torch.equal(whole_masks(low[:, 0], SIDE, framed, out_size), expected)


@pytest.mark.parametrize("points", ["all", 2])
def test_regions_of_a_picture_by_the_released_predictor(sam, oracle, points):
    """From pixels to regions: the masks of the predictor, of points in the picture's own pixels,
    and a loop over the pixels."""
    size, (h, w) = (40, 56), (5, 7)
    pixels = picture(size, seed=7)
    clusters = np.random.default_rng(8).integers(-1, 3, h * w)
    theirs, logits, scores = predictor(oracle, pixels), [], []
    _, labels = prompts(clusters, (h, w), framed_size(size, SIDE), points)
    chosen = np.flatnonzero(clusters >= 0)
    if points != "all":  # which they are is another test's question
        corners = prompts(clusters, (h, w), (2 * h, 2 * w), points)[0] - 0.5  # 0, 2, 4, …
        chosen = (corners @ (0.5, 0.5 * w)).astype(int)
    rows, columns = np.divmod(chosen, w)
    at = np.stack([(columns + 0.5) / w * size[1], (rows + 0.5) / h * size[0]], axis=1)
    half = 0.5 * np.array(size[::-1]) / np.array(framed_size(size, SIDE)[::-1])
    for own in labels:  # the predictor counts pixels from their corner, and adds ½ in SAM's frame
        mask, score, _ = theirs.predict(at - half, own, multimask_output=False, return_logits=True)
        logits.append(mask[0])
        scores.append(score[0])
    expected = np.full(size, -1)
    for row in range(size[0]):
        for column in range(size[1]):
            best = -np.inf
            for cluster, mask in enumerate(logits):
                if mask[row, column] > 0 and scores[cluster] > best:
                    best, expected[row, column] = scores[cluster], cluster
    embedding = embed(sam, frame(pixels, SIDE)[0])
    options = SamOptions(points=points)
    ours = sam_regions(sam, embedding, clusters, (h, w), size, size, options)
    assert len(np.unique(expected)) > 1
    clear = (np.abs(logits) > CLOSE).all(axis=0)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(ours.numpy()[clear], expected[clear])
