"""A few scenes in a data folder, a small CLIP with random weights in a folder, runs of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from tests.few_scenes import write_scenes

from cliptrase import config
from cliptrase.config import Run
from cliptrase.errors import UserError
from cliptrase.evaluate import passes

IMAGES = 6
VISION = {"layers": 4, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 224}
TEXT = {"width": 32, "heads": 1, "layers": 1}
EMBED = 32


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose `shapes` has six scenes; text features gather in it."""
    return write_scenes(tmp_path_factory.mktemp("data"), range(IMAGES))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip folder. Strong queries and weak mixing: patches, and so labels, differ."""
    folder = tmp_path_factory.mktemp("clip")
    generator = torch.Generator().manual_seed(3)
    clip = CLIP(EMBED, CLIPVisionCfg(**VISION), CLIPTextCfg(**TEXT), quick_gelu=True)
    for name, parameter in clip.requires_grad_(False).named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if ".ln_" in name or "ln_p" in name:
            parameter.copy_(0.3 * noise + name.endswith("weight"))
        elif noise.ndim > 1:
            mixing = 0.4 if "out_proj" in name or "c_proj" in name else 1.5
            parameter.copy_(mixing * parameter.shape[-1] ** -0.5 * noise)
    save_file(clip.state_dict(), str(folder / "open_clip_model.safetensors"))
    towers = {"embed_dim": EMBED, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    content = {"model_cfg": towers, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def runs_of(model: Path) -> Callable[..., dict[str, Run]]:
    """runs_of([override, …], …): name → resolved run, on the small model at 112 pixels."""

    def resolved(*overrides: list[str]) -> dict[str, Run]:
        shared = ["model=local", f"model.path={model}", "image_size=112"]
        runs = [config.resolve([*shared, *one]) for one in overrides]
        return {run.name: run for run in runs}

    return resolved


@pytest.fixture(scope="session")
def make(data: Path) -> Callable[..., dict[str, Path]]:
    """make(runs, out, …): run_pass on the scenes, on the CPU, with one thread."""

    def made(runs: dict[str, Run], out: Path, **options: Any) -> dict[str, Path]:
        options = {"data": data, "device": "cpu", "workers": 1} | options
        return passes.run_pass(runs, partial=out / ".partial.npz", out=out, **options)

    return made


@pytest.fixture
def spoiled_sclip(monkeypatch):
    """A pass that has a run of SCLIP ends with an error."""
    run_pass = passes.run_pass

    def spoiled(runs, **options):
        if any(".sclip." in name for name in runs):
            raise UserError("sclip is spoiled")
        return run_pass(runs, **options)

    monkeypatch.setattr(passes, "run_pass", spoiled)
