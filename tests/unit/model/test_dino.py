"""DINO's networks against timm's own forward, the authors' resizes, and loops."""

import itertools
import json
import socket

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from slow_reference import positions
from tests.objects import method
from timm.layers import resample_abs_pos_embed

from cliptrase.config import resolve
from cliptrase.config.backbones import CONFIG, WEIGHTS
from cliptrase.errors import UserError
from cliptrase.model import dino
from cliptrase.model.backbones import load_networks
from cliptrase.model.dino import check_denoise, features, load_dino, tokens
from cliptrase.segment.clustering import Points, dbscan_clusters
from cliptrase.segment.correlation import correlation, less_cls, patch_part
from cliptrase.segment.regions import prototypes, region_maps, smooth_maps

DINO = ["benchmark=shapes", "method=cliptrase_dinov2"]
SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 56, "patch_size": 14}
NETWORKS = {
    "dinov2": ("vit_base_patch14_dinov2", SMALL),
    "registers": ("vit_base_patch14_reg4_dinov2", SMALL),
    "dino": ("vit_base_patch16_224", SMALL | {"patch_size": 8}),
    "dinov3": ("vit_base_patch16_dinov3", SMALL),
    "dinov3 biases": ("vit_base_patch16_dinov3_qkvb", SMALL),
    "no cls": ("vit_base_patch16_224", SMALL | {"class_token": False, "global_pool": ""}),
    "registers alone": (
        "vit_base_patch14_reg4_dinov2", SMALL | {"class_token": False, "global_pool": ""},
    ),
}  # fmt: skip


def write_folder(folder, name, dtype=torch.float32):
    """A folder in timm's layout of one of NETWORKS, and timm's network: all parameters random."""
    architecture, arguments = NETWORKS[name]
    model = timm.create_model(architecture, num_classes=0, **arguments).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = parameter.shape[-1] ** -0.5 if "weight" in key and noise.ndim > 1 else 0.3
            centre = 1.0 if "norm" in key and key.endswith("weight") else 0.0
            parameter.copy_((centre + scale * noise).to(dtype))
    folder.mkdir()
    config = {"architecture": architecture, "num_classes": 0, "model_args": arguments}
    (folder / CONFIG).write_text(json.dumps(config))
    save_file({key: value.to(dtype) for key, value in model.state_dict().items()}, folder / WEIGHTS)
    return model


def load(folder):
    config = json.loads((folder / CONFIG).read_text())
    return load_dino(folder, config["architecture"], folder.name)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """By name: the loaded network, and timm's."""
    root = tmp_path_factory.mktemp("networks")
    theirs = {name: write_folder(root / name, name) for name in NETWORKS}
    return {name: (load(root / name), model) for name, model in theirs.items()}


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_tokens_at_native_size_are_timms_own_bit_for_bit(networks, name):
    ours, theirs = networks[name]
    pixels = noise(2, 3, 56, 56)
    seen = tokens(ours, pixels)
    with torch.no_grad():
        expected = theirs.forward_features(pixels)
        steps = theirs.forward_intermediates(pixels, output_fmt="NLC", return_prefix_tokens=True)
    assert torch.equal(seen.final, expected)
    assert expected.std() > 0.1  # not a comparison of zeros
    assert seen.grid == (56 // ours.patch, 56 // ours.patch)
    for index, entering in enumerate([seen.second_last, seen.last]):
        patches, prefix = steps[1][index] if ours.prefix else (steps[1][index], entering[:, :0])
        assert torch.equal(entering, torch.cat([prefix, patches], dim=1))


@pytest.mark.parametrize("name", ["dinov3", "dinov3 biases"])
def test_rotated_networks_are_timms_own_at_every_size(networks, name):
    ours, theirs = networks[name]
    pixels = noise(1, 3, 70, 98)
    with torch.no_grad():
        assert torch.equal(tokens(ours, pixels).final, theirs.forward_features(pixels))


@pytest.mark.parametrize("grid", [(5, 7), (3, 3), (9, 4), (1, 2)])
@pytest.mark.parametrize("name", ["dinov2", "dino"])
def test_the_table_without_registers_is_resized_by_dinos_formula(networks, name, grid):
    ours, theirs = networks[name]
    table, _ = dino._positions(ours, *grid)
    expected = positions(theirs.pos_embed[0].detach().double().numpy(), *grid)
    np.testing.assert_allclose(table[0].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("grid", [(5, 7), (3, 3), (9, 4), (1, 2)])
@pytest.mark.parametrize("name", ["registers", "registers alone"])
def test_the_table_with_registers_is_resized_as_timm_does(networks, name, grid):
    ours, theirs = networks[name]
    table, _ = dino._positions(ours, *grid)
    with torch.no_grad():
        expected = resample_abs_pos_embed(theirs.pos_embed, list(grid), num_prefix_tokens=0)
    assert torch.equal(table, expected)


def test_the_two_rules_give_other_tables(networks):
    ours, theirs = networks["dinov2"]
    table, _ = dino._positions(ours, 3, 3)
    antialiased = resample_abs_pos_embed(theirs.pos_embed, [3, 3], num_prefix_tokens=1)
    assert (table - antialiased).norm() > 0.05 * table.norm()


def test_the_trained_grid_keeps_its_table(networks):
    ours, _ = networks["dinov2"]
    assert dino._positions(ours, 4, 4)[0] is ours.model.pos_embed


@pytest.mark.parametrize("name", ["dinov2", "registers"])
def test_tokens_on_another_grid_are_timms_with_the_resized_table(networks, name):
    """timm's own forward, told to take any grid, with the resized table for its own."""
    ours, _ = networks[name]
    pixels = noise(2, 3, 70, 98)
    seen = tokens(ours, pixels)
    architecture, arguments = NETWORKS[name]
    there = timm.create_model(architecture, num_classes=0, **arguments | {"img_size": (70, 98)})
    stored = ours.model.state_dict() | {"pos_embed": dino._positions(ours, 5, 7)[0]}
    there.load_state_dict(stored)
    with torch.no_grad():
        assert torch.equal(seen.final, there.eval().forward_features(pixels))
    assert seen.grid == (5, 7)


@pytest.mark.parametrize(
    "sides, grid",
    [((56, 84), (4, 6)), ((57, 62), (4, 4)), ((63, 64), (5, 5)), ((3, 100), (1, 7))],
)
def test_sides_that_the_patch_does_not_divide_go_to_the_nearest_multiples(networks, sides, grid):
    ours, _ = networks["dinov2"]
    pixels = noise(1, 3, *sides)
    assert ours.grid(*sides) == grid
    size = (14 * grid[0], 14 * grid[1])
    resized = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    seen, expected = tokens(ours, pixels), tokens(ours, resized)
    assert seen.grid == expected.grid == grid
    assert torch.equal(seen.final, expected.final)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_gives_the_tokens_of_each_image_bit_for_bit(networks, name):
    ours, _ = networks[name]
    pixels = noise(3, 3, 60, 100)
    together = tokens(ours, pixels)
    for index in range(3):
        alone = tokens(ours, pixels[index : index + 1])
        assert all(
            torch.equal(one[0], all_of[index])
            for one, all_of in zip(alone[1:], together[1:], strict=True)
        )


def cosine(a, b):
    return float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))


def split(theirs, index, entering):
    """Queries, keys, values of a block of timm, each (B, H, L', d), by its own layers."""
    block = theirs.blocks[index]
    joint = block.attn.qkv(block.norm1(entering))
    if getattr(block.attn, "q_bias", None) is not None:
        joint = joint + torch.cat([block.attn.q_bias, block.attn.k_bias, block.attn.v_bias])
    heads = joint.unflatten(-1, (3, block.attn.num_heads, -1))
    return heads.permute(2, 0, 3, 1, 4).detach().double().numpy()


@pytest.mark.parametrize("feature", ["tokens", "key", "qkv"])
@pytest.mark.parametrize("name", ["dinov2", "registers", "dinov3 biases"])
def test_the_correlation_by_loops_without_registers(networks, name, feature):
    ours, theirs = networks[name]
    seen = tokens(ours, noise(2, 3, 42, 70))
    w = correlation(features(ours, seen, feature), "cosine")
    number = seen.grid[0] * seen.grid[1]
    kept = [0, *range(ours.prefix, ours.prefix + number)]
    assert w.shape == (2, 1 + number, 1 + number)
    q, k, v = split(theirs, 1, seen.second_last)
    keys = split(theirs, 2, seen.last)[1]
    final = seen.final.double().numpy()
    for image, (row, i), (column, j) in itertools.product(
        range(2), enumerate(kept), enumerate(kept)
    ):
        match feature:
            case "tokens":
                expected = cosine(final[image, i], final[image, j])
            case "key":
                a, b = (keys[image, :, at].ravel() for at in (i, j))
                expected = cosine(a, b)
            case _:
                parts = [
                    cosine(part[image, head, i], part[image, head, j])
                    for part in (q, k, v)
                    for head in range(3)
                ]
                expected = sum(parts) / len(parts)
        assert w[image, row, column].item() == pytest.approx(expected, abs=3e-6)


@pytest.mark.parametrize("feature", ["tokens", "key", "qkv"])
@pytest.mark.parametrize("name", ["no cls", "registers alone"])
def test_without_cls_the_correlation_has_zeros_in_its_place(networks, name, feature):
    ours, _ = networks[name]
    seen = tokens(ours, noise(1, 3, 56, 70))
    w = correlation(features(ours, seen, feature), "cosine")
    assert not ours.has_cls and w.shape == (1, 21, 21)
    assert not w[:, 0].any() and not w[:, :, 0].any()
    if feature == "tokens":
        rows = F.normalize(seen.final[:, ours.prefix :], dim=-1)
        torch.testing.assert_close(patch_part(w), rows @ rows.transpose(1, 2))


def test_denoising_by_cls_is_refused_without_cls(networks):
    ours, _ = networks["no cls"]
    check_denoise(ours, "none")
    check_denoise(networks["registers"][0], "cls")
    with pytest.raises(UserError, match=r"denoise=cls.* needs a \[CLS\] token.*no cls has none"):
        check_denoise(ours, "cls")


def test_equal_tokens_are_one_region(tmp_path):
    model = write_folder(tmp_path / "d", "dinov2")
    with torch.no_grad():
        model.norm.weight.zero_()
    save_file(model.state_dict(), tmp_path / "d" / WEIGHTS)
    ours = load(tmp_path / "d")
    seen = tokens(ours, noise(1, 3, 56, 84))
    rows = less_cls(correlation(features(ours, seen, "tokens"), "cosine"))
    assert rows.max() < 1e-6
    labels = dbscan_clusters(Points(rows), method().regions)
    assert not labels.any()
    maps = smooth_maps(prototypes(rows, labels, [0], [0]), seen.grid, 4, 7)
    assert not region_maps(maps, np.zeros((1, 1), dtype=int)).any()


def test_pixels_are_normalised_by_the_folders_mean_and_imagenets_by_default(tmp_path, networks):
    by_default = networks["dino"][0]  # timm's own default of this architecture is 0.5
    assert by_default.mean == (0.485, 0.456, 0.406) and by_default.std == (0.229, 0.224, 0.225)
    write_folder(tmp_path / "d", "dino")
    file = tmp_path / "d" / CONFIG
    shown = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pretrained_cfg": shown}))
    ours = load(tmp_path / "d")
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    expected = (pixels / 255 - shown["mean"]) / shown["std"]
    got = ours.normalise(pixels).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_folder_is_read_without_gradients_as_fp32_and_asks_nobody(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model = write_folder(tmp_path / "d", "registers", torch.float16)
    ours = load(tmp_path / "d")
    assert (ours.label, ours.patch, ours.prefix, ours.has_cls) == ("d", 14, 5, True)
    assert not ours.model.training
    for name, parameter in ours.model.named_parameters():
        assert parameter.dtype == torch.float32 and not parameter.requires_grad
        assert torch.equal(parameter, model.get_parameter(name)), name


def test_the_architecture_may_be_named_with_its_tag_and_a_mask_token_is_left_out(tmp_path):
    write_folder(tmp_path / "d", "dinov2")
    file, weights = tmp_path / "d" / CONFIG, tmp_path / "d" / WEIGHTS
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"architecture": "resnet18"}))
    save_file(load_file(weights) | {"mask_token": torch.zeros(1, 48)}, weights)
    ours = load_dino(tmp_path / "d", "vit_base_patch14_dinov2.lvd142m", "d")
    assert ours.prefix == 1


def test_the_native_size_is_the_folders(tmp_path):
    """As the files of timm's hub say it: not by an argument, but by `input_size`."""
    model = write_folder(tmp_path / "d", "dinov2")
    file = tmp_path / "d" / CONFIG
    config = json.loads(file.read_text())
    config["model_args"].pop("img_size")
    config["pretrained_cfg"] = {"input_size": [3, 56, 56], "fixed_input_size": True}
    file.write_text(json.dumps(config))
    ours = load(tmp_path / "d")
    assert ours.model.patch_embed.grid_size == model.patch_embed.grid_size == (4, 4)


def damage(folder, how):
    """Break a good folder; the file that the message must name, and what it must say."""
    weights, file = folder / WEIGHTS, folder / CONFIG
    config, stored = json.loads(file.read_text()), load_file(weights)
    match how:
        case "no weights":
            weights.unlink()
            return WEIGHTS, "no such file"
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-1000])
            return WEIGHTS, "not safetensors, or cut off"
        case "html":
            weights.write_text("<!DOCTYPE html><html>not found</html>")
            return WEIGHTS, "not safetensors, or cut off"
        case "empty":
            weights.write_bytes(b"")
            return WEIGHTS, "not safetensors, or cut off"
        case "other shapes":
            stored["pos_embed"] = stored["pos_embed"][:, :10].contiguous()
            save_file(stored, weights)
            return WEIGHTS, "pos_embed"
        case "a tensor missing":
            save_file({key: stored[key] for key in stored if key != "norm.bias"}, weights)
            return WEIGHTS, "norm.bias"
        case "a tensor more":
            save_file(stored | {"reg_token": torch.zeros(1, 4, 48)}, weights)
            return WEIGHTS, "reg_token"
        case "NaN":
            stored["blocks.1.attn.qkv.weight"][0, 0] = torch.nan
            save_file(stored, weights)
            return WEIGHTS, "blocks.1.attn.qkv.weight is not finite"
        case "no config":
            file.unlink()
            return CONFIG, "no such file"
        case "config is not JSON":
            file.write_text("{")
            return CONFIG, "not JSON in UTF-8"
        case "config is a list":
            file.write_text("[]")
            return CONFIG, "not a JSON object"
        case "of transformers":
            file.write_text(json.dumps({"architectures": ["Dinov2Model"]}))
            return CONFIG, "neither transformers' SAM (model_type sam) nor a ViT of timm"
        case "unknown":
            file.write_text(json.dumps(config | {"architecture": "vit_base_patch14_dinov9"}))
            return CONFIG, "did you mean 'vit_base_patch14_dinov2'?"
        case "a hub's address":
            file.write_text(json.dumps(config | {"architecture": "hf-hub:timm/vit"}))
            return CONFIG, "timm knows no architecture 'hf-hub:timm/vit'"
        case "unknown arguments":
            file.write_text(json.dumps(config | {"model_args": {"depht": 3}}))
            return CONFIG, "depht"
        case "not a ViT":
            file.write_text(json.dumps({"architecture": "resnet18"}))
            return CONFIG, "architecture resnet18: the side of its patches is not known"
        case "not a plain ViT":
            file.write_text(json.dumps(config | {"architecture": "beit_base_patch16_224"}))
            return CONFIG, "beit_base_patch16_224 is not a plain ViT"
        case "one block":
            config["model_args"]["depth"] = 1
            file.write_text(json.dumps(config))
            return CONFIG, "two blocks or more"
        case "grey":
            file.write_text(json.dumps(config | {"model_args": SMALL | {"in_chans": 1}}))
            return CONFIG, "colour pictures"
    raise ValueError(how)


@pytest.mark.parametrize(
    "how",
    [
        "no weights", "truncated", "html", "empty", "other shapes", "a tensor missing",
        "a tensor more", "NaN", "no config", "config is not JSON", "config is a list",
        "of transformers", "unknown", "a hub's address", "unknown arguments", "not a ViT",
        "not a plain ViT",
        "one block", "grey",
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_message(tmp_path, how):
    write_folder(tmp_path / "d", "dinov2")
    named, said = damage(tmp_path / "d", how)
    with pytest.raises(UserError) as caught:
        run = resolve([*DINO, f"method.dino=local-dir:{tmp_path / 'd'}"])
        load_networks([run.method.dino], "cpu")
    message = str(caught.value)
    assert f"{tmp_path / 'd' / named}: " in message and said in message
    assert "method.dino=local-dir:" in message and "\n" not in message
