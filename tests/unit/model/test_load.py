"""Loading: what open_clip writes is read, anything else is one message."""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import socket
import zipfile
from pathlib import Path

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.objects import changed, local_model, open_clip_model, openai_model
from tests.openai_files import small_clip, write_openai_file

from cliptrase.config import resolve, weights
from cliptrase.config.schema import Model
from cliptrase.config.weights import CONFIG, WEIGHTS
from cliptrase.errors import UserError
from cliptrase.model import fetch
from cliptrase.model.load import load_clip
from cliptrase.segmenter import Segmenter

ARCHITECTURE = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 64,
        "layers": 2,
        "width": 48,
        "head_width": 16,
        "patch_size": 16,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def write_folder(folder: Path, clip, model_cfg=None, dtype=torch.float32) -> Model:
    folder.mkdir(exist_ok=True)
    config = {
        "model_cfg": model_cfg or ARCHITECTURE,
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    }
    (folder / CONFIG).write_text(json.dumps(config))
    weights = {key: value.to(dtype) for key, value in clip.model.state_dict().items()}
    save_file(weights, str(folder / WEIGHTS))
    return local_model(folder, label="mine")


@pytest.fixture(scope="module")
def small(tiny):
    from open_clip.model import CLIP

    torch.manual_seed(3)
    clip = tiny(layers=1)
    model = CLIP(**ARCHITECTURE).eval().requires_grad_(False)
    return type(clip)(**{**vars(clip), "model": model, "positions": {}})


def test_a_folder_is_read_without_gradients_as_fp32(tmp_path, small):
    clip = load_clip(write_folder(tmp_path / "m", small, dtype=torch.float16))
    heads = clip.blocks[0].attn.num_heads
    assert (clip.patch, clip.depth, heads, clip.embed_dim) == (16, 2, 3, 24)
    assert clip.mean == (0.1, 0.2, 0.3) and clip.std == (0.4, 0.5, 0.6) and clip.label == "mine"
    assert not clip.model.training
    for name, parameter in clip.model.named_parameters():
        assert parameter.dtype == torch.float32 and not parameter.requires_grad
        half = small.model.get_parameter(name).half().float()
        assert torch.equal(parameter, half), name


def test_a_local_folder_never_asks_anyone(tmp_path, small, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    load_clip(write_folder(tmp_path / "m", small))


def damage(folder: Path, how: str) -> str:
    """Break a good folder; the file that the message must name."""
    weights, config = folder / WEIGHTS, folder / CONFIG
    content = json.loads(config.read_text())
    match how:
        case "no weights":
            weights.unlink()
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "html":
            weights.write_text("<!DOCTYPE html><html>not found</html>")
        case "empty":
            weights.write_bytes(b"")
        case "another model's":
            tensors = load_file(str(weights))
            tensors["visual.proj"] = tensors["visual.proj"][:, :5].contiguous()
            save_file(tensors, str(weights))
        case "a tensor missing":
            tensors = load_file(str(weights))
            tensors.pop("visual.ln_post.weight")
            save_file(tensors, str(weights))
        case "no config":
            config.unlink()
            return CONFIG
        case "config is not JSON":
            config.write_text("{")
            return CONFIG
        case "config is a list":
            config.write_text("[]")
            return CONFIG
        case "ResNet":
            content["model_cfg"]["vision_cfg"]["layers"] = [3, 4, 6, 3]
            config.write_text(json.dumps(content))
            return CONFIG
        case "foreign tower":
            content["model_cfg"]["text_cfg"]["hf_model_name"] = "roberta-base"
            config.write_text(json.dumps(content))
            return CONFIG
    return WEIGHTS


@pytest.mark.parametrize(
    "how",
    [
        "no weights", "truncated", "html", "empty", "another model's", "a tensor missing",
        "no config", "config is not JSON", "config is a list", "ResNet", "foreign tower",
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_message(tmp_path, small, how):
    model = write_folder(tmp_path / "m", small)
    named = damage(tmp_path / "m", how)
    with pytest.raises(UserError) as caught:
        load_clip(model)
    assert str(tmp_path / "m" / named) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("make", ["missing", "file"])
def test_not_a_folder(tmp_path, small, make):
    path = tmp_path / "m"
    if make == "file":
        path.write_text("x")
    message = r"a file, but model\.path" if make == "file" else r"no such folder; model\.path"
    with pytest.raises(UserError, match=f"{message} names an open_clip folder"):
        local_model(path)
    gone = changed(write_folder(tmp_path / "other", small), {"path": str(path)})
    with pytest.raises(UserError, match=f"{message} names an open_clip folder"):
        load_clip(gone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_cfg": {"pool_type": "avg"}}, "not a plain ViT"),
        ({"vision_cfg": {"attentional_pool": True}}, "not a plain ViT"),
        ({"vision_cfg": {"attentional_pool": "parallel"}}, "not a plain ViT"),
        ({"vision_cfg": {"pool_type": "none"}}, "not a plain ViT"),
        ({"vision_cfg": {"patch_size": [16, 8]}}, "not squares"),
        ({"vision_cfg": {"block_type": "custom", "qk_norm": True}}, "not a plain ViT"),
        ({"text_cfg": {"no_causal_mask": True}}, "not CLIP's causal transformer"),
        ({"text_cfg": {"pool_type": "last"}}, "not CLIP's causal transformer"),
        ({"text_cfg": {"pool_type": "eos"}}, "not CLIP's causal transformer"),
        ({"text_cfg": {"embed_cls": True}}, "not CLIP's causal transformer"),
    ],
)
def test_architectures_without_plain_patch_tokens_are_refused(tmp_path, small, change, message):
    from open_clip.model import CLIP, CustomTextCLIP

    config = {
        key: {**value, **change.get(key, {})} if isinstance(value, dict) else value
        for key, value in ARCHITECTURE.items()
    }
    custom = "text_cfg" in change
    model = (CustomTextCLIP if custom else CLIP)(**config)
    other = type(small)(**{**vars(small), "model": model, "positions": {}})
    config = {**config, "custom_text": custom}
    with pytest.raises(UserError, match=message):
        load_clip(write_folder(tmp_path / "m", other, config))


def test_weights_by_file_for_a_name_that_open_clip_knows(tmp_path, small, monkeypatch):
    (tmp_path / "tiny-test.json").write_text(json.dumps(ARCHITECTURE))
    monkeypatch.setattr(weights, "_known_models", lambda: tmp_path)
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [tmp_path])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
    open_clip.factory._rescan_model_configs()
    write_folder(tmp_path / "m", small)
    clip = load_clip(open_clip_model("tiny-test", str(tmp_path / "m" / WEIGHTS)))
    assert torch.equal(clip.visual.proj, small.visual.proj)
    (tmp_path / "mine.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"mine\.safetensors: .* model\.pretrained=") as caught:
        load_clip(open_clip_model("tiny-test", str(tmp_path / "mine.safetensors")))
    assert "delete" not in str(caught.value), "it is the user's own"
    # the same file as a tag's cached weights: the hub is not asked, the tag says how to normalise
    source = {"hf_hub": "someone/tiny/", "quick_gelu": True, "mean": [0.9] * 3, "std": [0.8] * 3}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["mine"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: source)
    asked = []

    def in_cache(repository, filename):
        asked.append((repository, filename))
        return str(tmp_path / "m" / WEIGHTS) if filename == WEIGHTS else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", in_cache)
    clip = load_clip(open_clip_model("tiny-test", "mine"))
    assert asked[0] == ("someone/tiny", "open_clip_model.safetensors")
    assert clip.mean == (0.9,) * 3 and clip.std == (0.8,) * 3
    (tmp_path / "m" / WEIGHTS).write_bytes(b"cut off")
    with pytest.raises(UserError, match="delete the file and run again"):
        load_clip(open_clip_model("tiny-test", "mine"))


@pytest.mark.parametrize("offline", ["no name server", "hub set offline"])
def test_no_network_is_one_message_that_names_the_way_out(monkeypatch, offline, caplog, capfd):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *names: None)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(proxy, raising=False)

    def unreachable(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(
        socket, "getaddrinfo", unreachable if offline == "no name server" else lambda *where: []
    )
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(UserError) as caught:
        load_clip(open_clip_model("ViT-B-16-quickgelu", "openai"))
    message = str(caught.value)
    for part in ("ViT-B-16-quickgelu", "model=", "--model", "model=shapes_clip", "model.path=DIR"):
        assert part in message
    assert "\n" not in message
    assert logging.getLogger().handlers == handlers  # nothing was installed for good
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-16", "openai", "with QuickGELU; take model.name=ViT-B-16-quickgelu"),
        (
            "ViT-B-16-quickgelu",
            "laion2b_s34b_b88k",
            "neither a file nor weights of ViT-B-16-quickgelu",
        ),
        ("ViT-B-17", "openai", "unknown model.name 'ViT-B-17'; did you mean"),
        ("ViT-B-16", "laion2b", "neither a file nor weights of ViT-B-16"),
        ("ViT-B-16", None, "model.pretrained=null: must be a name or a path"),
        (
            "RN50-quickgelu",
            "openai",
            "=RN50-quickgelu: .* is a ResNet, which has no patches",
        ),
        ("coca_ViT-B-32", "laion2b_s13b_b90k", "pools by attention, as CoCa's"),
        (
            "ViT-B-16-SigLIP",
            "webli",
            "is vit_base_patch16_siglip_224, of timm; choose another",
        ),
        ("EVA02-B-16", "merged2b_s8b_b131k", "tower is eva02_base_patch16_clip_224, of timm"),
        ("ViT-L-14-CLIPA", "datacomp1b", "not a plain ViT"),
        ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k", "is xlm-roberta-base, of Hugging Face"),
    ],
)
def test_names_and_weights_that_do_not_fit_are_refused_before_fetching(
    monkeypatch, name, pretrained, message
):
    def refuse(*args, **kwargs):
        raise AssertionError("fetched")

    monkeypatch.setattr(fetch, "asking_hub", refuse)
    monkeypatch.setattr(fetch, "_cached", refuse)
    with pytest.raises(UserError, match=message):
        load_clip(open_clip_model(name, pretrained))


@pytest.fixture(scope="module")
def openai_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("openai") / "ViT-B-16.pt"
    write_openai_file(path, small_clip())
    return path


def test_openais_own_file_is_read_as_torch_reads_it(openai_file, monkeypatch):
    theirs = torch.jit.load(openai_file).state_dict()
    assert theirs["visual.conv1.weight"].dtype == torch.float16
    refuse = lambda *_, **__: pytest.fail("ran the file's code")  # noqa: E731
    monkeypatch.setattr(torch.jit, "load", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    model = openai_model(openai_file)
    clip = load_clip(model)
    assert (clip.patch, clip.depth, clip.embed_dim, clip.label) == (16, 2, 24, "openai_file")
    assert (model.patch, model.depth) == (16, 2) and len(model.weights_sha256) == 64
    assert type(clip.blocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert clip.mean == (0.48145466, 0.4578275, 0.40821073) and not clip.model.training
    for name, parameter in clip.model.named_parameters():
        assert not parameter.requires_grad
        assert torch.equal(parameter, theirs[name].float()), name
    expected = small_clip()
    tokens = clip.tokenizer(["a cat"])
    assert torch.equal(clip.model.encode_text(tokens), expected.encode_text(tokens))
    same = changed(model, {"path": str(openai_file) + "x"})
    assert same.model_dump() == model.model_dump(), "its path is no part of what it is"


def test_openais_own_file_by_every_way_in(openai_file, tmp_path):
    words = ["benchmark=shapes", "model=openai_file", f"model.path={openai_file}"]
    assert resolve(words).name.startswith("shapes.cliptrase.openai_file.224.")
    with pytest.raises(UserError, match=r"model\.path is needed"):
        resolve(words[:2])
    with pytest.raises(UserError, match=r"model\.path=null: must be"):
        resolve([*words[:2], "model.path=null"])
    chosen = {"method": "clip", "classes": ["cat", "sky"], "overrides": words[2:]}
    segmenter = Segmenter("openai_file", **chosen)
    assert segmenter(np.zeros((40, 60, 3), np.uint8)).labels.shape == (40, 60)
    with pytest.raises(UserError, match=r"a TorchScript archive; OpenAI's own: model=openai_file"):
        load_clip(open_clip_model("ViT-B-16-quickgelu", str(openai_file)))
    with pytest.raises(UserError, match=r"OpenAI's own files .* are read by model=openai_file"):
        local_model(openai_file)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize(
    "kind", ["absent", "folder", "html", "cut", "evil", "resnet", "other", "empty"]
)
def test_what_is_no_file_of_openais_is_one_message(kind, openai_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, message = tmp_path / "model.pt", "not an archive of OpenAI's CLIP, or cut off"
    match kind:
        case "absent":
            message = "no such file"
        case "folder":
            path.mkdir()
            message = "a folder, but model.path names a file of OpenAI's here"
        case "html":
            path.write_text("<html>")
        case "cut":
            path.write_bytes(openai_file.read_bytes()[:-1000])
        case "evil":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("m/data.pkl", pickle.dumps({"visual": Evil()}, protocol=2))
            message = "damaged, or not a CLIP file"
        case "resnet":
            torch.save({"visual.layer1.0.conv1.weight": torch.zeros(1)}, path)
            message = "a ResNet, which has no patches; take one of OpenAI's ViT files"
        case "other":
            torch.save({"weight": torch.zeros(1)}, path)
            message = "holds no ViT of CLIP"
        case "empty":
            path.touch()
    with pytest.raises(UserError) as caught:
        openai_model(path)
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)
    assert not Path("touched").exists()


@pytest.mark.parametrize("kind", ["arguments", "html", "text", "empty", "list", "cut"])
def test_a_checkpoint_that_torch_refuses_is_one_plain_message(kind, tmp_path):
    path, message = tmp_path / "epoch_32.pt", "not weights that PyTorch wrote, or cut off"
    match kind:
        case "arguments":
            torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, path)
            message = "it holds Python objects (argparse.Namespace)"
        case "html":
            path.write_text("<html>")
        case "text":
            path.write_text("hello")
        case "empty":
            path.touch()
        case "list":
            torch.save([torch.zeros(9)], path)
            message = "not a state_dict, which holds tensors by their names"
        case "cut":
            torch.save({"weight": torch.zeros(9)}, path)
            path.write_bytes(path.read_bytes()[:-300])
            message = "cannot be loaded"
    with pytest.raises(UserError) as caught:
        load_clip(open_clip_model("ViT-B-32", str(path)))
    said = str(caught.value)
    assert said.startswith(f"{path}: cannot be loaded") and message in said, said
    assert "\n" not in said and "\x1b" not in said and "weights_only" not in said


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "this folder is of transformers"),
        ("open_clip_pytorch_model.bin", r"model\.pretrained=.*open_clip_pytorch_model\.bin"),
    ],
)
def test_a_folder_of_another_format_says_what_it_is(file, message, tmp_path, small):
    write_folder(tmp_path, small)
    (tmp_path / (CONFIG if file == "config.json" else WEIGHTS)).rename(tmp_path / file)
    with pytest.raises(UserError, match=f"no such file; .*{message}"):
        local_model(tmp_path)
