"""SAM's folder, frame, coordinates and prompts; tests/parity compares it with the released code."""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from random_sams import SIDE, random_sam, write_sam
from safetensors.torch import load_file, save_file

from cliptrase.config import resolve
from cliptrase.config.backbones import CONFIG, WEIGHTS
from cliptrase.errors import UserError
from cliptrase.model.backbones import load_networks
from cliptrase.model.sam import (
    decode,
    embed,
    frame,
    frame_view,
    framed_size,
    load_sam,
    patch_centres,
)

SHARED = "shared_image_embedding.positional_embedding"
TIED = "prompt_encoder.shared_embedding.positional_embedding"


@pytest.fixture(scope="module")
def sam():
    return random_sam()


@pytest.fixture
def folder(tmp_path):
    write_sam(tmp_path / "sam")
    return tmp_path / "sam"


def test_a_folder_is_read_as_fp32_without_network_and_quietly(folder, monkeypatch, capfd):
    def refuse(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    half = {name: values.half() for name, values in load_file(folder / WEIGHTS).items()}
    save_file(half, folder / WEIGHTS)
    capfd.readouterr()
    sam = load_sam(folder, "mine")
    assert capfd.readouterr() == ("", "")
    assert (sam.label, sam.side, sam.device) == ("mine", SIDE, torch.device("cpu"))
    assert not sam.model.training
    stored = sam.model.state_dict()
    assert torch.equal(stored.pop(TIED), stored[SHARED])  # the file holds one of the two
    assert set(stored) == set(half)
    for name, values in stored.items():
        assert values.dtype == torch.float32 and torch.equal(values, half[name].float()), name
    assert not any(parameter.requires_grad for parameter in sam.model.parameters())


def without(name):
    return lambda folder: (folder / name).unlink()


def another_type(folder):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"model_type": "sam2"}))


def with_layers(layers):
    def write(folder):
        config = json.loads((folder / CONFIG).read_text())
        config["vision_config"]["num_hidden_layers"] = layers
        (folder / CONFIG).write_text(json.dumps(config))

    return write


def edited(edit):
    def write(folder):
        weights = load_file(folder / WEIGHTS)
        edit(weights)
        save_file(weights, folder / WEIGHTS)

    return write


@pytest.mark.parametrize(
    ("damage", "file", "fault"),
    [
        (without(CONFIG), CONFIG, "no such file"),
        (without(WEIGHTS), WEIGHTS, "no such file"),
        (another_type, CONFIG, "model_type sam2: neither transformers' SAM (model_type sam) nor"),
        (lambda folder: (folder / CONFIG).write_text("{"), CONFIG, "not JSON in UTF-8"),
        (lambda folder: (folder / CONFIG).write_text("[]"), CONFIG, "not a JSON object"),
        (with_layers("many"), CONFIG, "expected int"),
        (with_layers(4), WEIGHTS, "tensors missing, as vision_encoder.layers.3.attn.proj.bias"),
        (
            lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
            WEIGHTS,
            "not safetensors, or cut off",
        ),
        (edited(lambda weights: weights.clear()), WEIGHTS, "tensors missing"),
        (edited(lambda weights: weights.pop(SHARED)), WEIGHTS, "missing, as"),
        (
            edited(lambda weights: weights.update(more=torch.ones(1))),
            WEIGHTS,
            "1 tensor unknown, as more",
        ),
        (
            edited(lambda weights: weights.update({SHARED: torch.ones(2, 3)})),
            WEIGHTS,
            f"1 tensor of another shape, as {SHARED}",
        ),
        (
            edited(lambda weights: weights[SHARED].fill_(torch.nan)),
            WEIGHTS,
            "NaN or infinity in ",
        ),
    ],
)
def test_a_folder_that_is_no_sam_is_refused_by_name(folder, damage, file, fault, capfd):
    damage(folder)
    capfd.readouterr()
    with pytest.raises(UserError) as refused:
        run = resolve(
            ["benchmark=shapes", "method=cliptrase_sam", f"method.sam=local-dir:{folder}"]
        )
        load_networks([run.method.sam], "cpu")
    message = str(refused.value)
    assert f"{folder / file}: " in message and fault in message, message
    assert "method.sam=local-dir:" in message and "\n" not in message
    assert capfd.readouterr() == ("", "")


def test_without_transformers_the_message_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"mine needs transformers.*pip install transformers"):
        load_sam(folder, "mine")


@pytest.mark.parametrize(
    ("seen", "side", "expected"),
    [
        ((224, 224), 1024, (1024, 1024)),
        ((336, 448), 1024, (768, 1024)),
        ((480, 640), 1024, (768, 1024)),
        ((500, 375), 1024, (1024, 768)),
        ((3, 2), 64, (64, 43)),
    ],
)
def test_the_long_side_fills_the_frame(seen, side, expected):
    assert framed_size(seen, side) == expected


def test_what_lies_beside_the_picture_is_zero_and_not_black():
    framed, (height, width) = frame(np.zeros((32, 16, 3), np.uint8), SIDE)
    assert (height, width) == (64, 32) and framed.shape == (1, 3, 64, 64)
    assert (framed[..., 32:] == 0).all()
    black = torch.tensor([-123.675 / 58.395, -116.28 / 57.12, -103.53 / 57.375])
    torch.testing.assert_close(framed[0, :, 5, 5], black)
    assert (framed[..., :32] == framed[..., :1, :1]).all()


def test_a_view_is_cut_from_the_pictures_own_pixels():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (100, 150, 3), dtype=np.uint8)
    view, size = frame_view(Image.fromarray(pixels), (40.0, 20.0, 104.0, 84.0), (14, 14), SIDE)
    assert size == (SIDE, SIDE)
    assert torch.equal(view, frame(pixels[20:84, 40:104], SIDE)[0])
    whole, size = frame_view(Image.fromarray(pixels), (0.0, 0.0, 150.0, 100.0), (100, 150), SIDE)
    assert size == (43, 64)
    assert torch.equal(whole, frame(pixels, SIDE)[0])


@pytest.mark.parametrize(
    ("grid", "framed"),
    [
        ((14, 14), (1024, 1024)),
        ((21, 21), (1024, 1024)),
        ((24, 24), (1024, 1024)),
        ((14, 14), (224, 224)),
        ((5, 7), (731, 1024)),
        ((9, 1), (64, 7)),
    ],
)
def test_centres_of_patches_are_exact(grid, framed):
    (h, w), (height, width) = grid, framed
    half = Fraction(1, 2)
    expected = [
        (float((c + half) / w * width - half), float((r + half) / h * height - half))
        for r in range(h)
        for c in range(w)
    ]
    points = patch_centres(grid, framed)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, np.array(expected).astype(np.float32))


def test_the_centre_of_the_first_patch_of_224_pixels():
    assert patch_centres((14, 14), (1024, 1024))[0] == pytest.approx([36.0714, 36.0714], abs=1e-4)


def test_a_picture_is_embedded_alike_in_any_company(sam):
    framed = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    batches: list[int] = []
    hook = sam.model.vision_encoder.register_forward_pre_hook(
        lambda module, inputs: batches.append(len(inputs[0]))
    )
    together = embed(sam, framed)
    hook.remove()
    assert batches == [1, 1, 1]
    alone = [embed(sam, picture) for picture in framed.split(1)]
    with ThreadPoolExecutor(3) as pool:
        beside = list(pool.map(lambda picture: embed(sam, picture), framed.split(1)))
    assert torch.equal(together, torch.cat(alone)) and torch.equal(together, torch.cat(beside))
    assert not torch.equal(together[0], together[1])


def prompted(sam, **more):
    generator = torch.Generator().manual_seed(2)
    embedding = embed(sam, torch.randn(1, 3, SIDE, SIDE, generator=generator))
    points = SIDE * torch.rand(6, 2, generator=generator)
    labels = (torch.rand(4, 6, generator=generator) > 0.5).long()
    return decode(sam, embedding, points, labels, **more)


def test_the_best_of_three_masks_has_the_largest_predicted_iou(sam, monkeypatch):
    masks, ious = prompted(sam)
    assert masks.shape == (4, SIDE // 2, SIDE // 2) and ious.shape == (4,)
    both = {}

    def keep(module, inputs, kwargs, output):
        scores = output.iou_scores
        scores[0, 1] = torch.tensor([0.5, 0.7, 0.7])  # a tie
        scores[0, 2] = torch.tensor([0.1, 0.2, 0.9])
        both.update(masks=output.pred_masks[0], ious=scores[0])

    handle = sam.model.register_forward_hook(keep, with_kwargs=True)
    masks, ious = prompted(sam, multimask=True)
    handle.remove()
    assert both["masks"].shape == (4, 3, SIDE // 2, SIDE // 2)
    assert torch.equal(masks[1], both["masks"][1, 1]) and ious[1] == both["ious"][1, 1]
    assert torch.equal(masks[2], both["masks"][2, 2]) and ious[2] == both["ious"][2, 2]


def test_masks_that_are_not_finite_are_refused(sam):
    embedding = torch.full((1, 32, SIDE // 8, SIDE // 8), torch.nan)
    points, labels = torch.ones(2, 2), torch.ones(1, 2, dtype=torch.int64)
    with pytest.raises(UserError, match=r"random makes masks of NaN.*method.sam=local-dir:DIR"):
        decode(sam, embedding, points, labels)
