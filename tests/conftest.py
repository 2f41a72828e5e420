"""What every test stands on: no network, no account, one thread, the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cliptrase import plan

# Before any test imports torch, datasets or wandb: they read these once.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # CUDA_VISIBLE_DEVICES=0: with the GPU's tests
os.environ.update(
    HF_DATASETS_OFFLINE="1",
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
)


@pytest.fixture(scope="session")
def smoke() -> plan.Plan:
    return plan.load("smoke")


@pytest.fixture(scope="session")
def shapes() -> plan.Plan:
    return plan.load("shapes")


@pytest.fixture(scope="session")
def paper() -> plan.Plan:
    return plan.load("paper")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A training repeats bit for bit on one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """A working directory without data and results."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
