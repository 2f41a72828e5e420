"""The golden data beside the repository, where it is there, and the model it was made on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "golden" / "make_model.py").is_file():
        pytest.skip("the golden data is not beside this repository")
    return SHARED.resolve()


@pytest.fixture(scope="session")
def parity_folder(shared, tmp_path_factory) -> Path:
    """The open_clip folder of the parity model: ViT-B/16's shape, narrower, with fixed weights."""
    folder = tmp_path_factory.mktemp("parity") / "model"
    subprocess.run([sys.executable, shared / "golden" / "make_model.py", folder], check=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)
