"""The parity model, and the golden data beside the repository, where it is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.parity import parity_model

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "golden" / "make_model.py").is_file():
        pytest.skip("the golden data is not beside this repository")
    return SHARED.resolve()


@pytest.fixture(scope="session")
def parity_folder(tmp_path_factory) -> Path:
    """The open_clip folder of the parity model: ViT-B/16's shape, narrower, with fixed weights."""
    folder = tmp_path_factory.mktemp("parity") / "model"
    parity_model.write(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)
