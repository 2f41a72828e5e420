"""Which device a pass takes: passes that run at once spread over the GPUs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cliptrase.errors import UserError
from cliptrase.evaluate.device import computing_on, fitting


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A machine that seems to have two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"GPU-{index}")
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_each_pass_takes_a_gpu_of_its_own(two_gpus, caplog):
    with computing_on("auto") as first:
        with computing_on("cuda") as second, computing_on("auto") as third:
            assert (str(first), str(second), str(third)) == ("cuda:0", "cuda:1", "cuda:0")
        assert "every GPU is taken" in caplog.text
        with computing_on("auto") as again:
            assert str(again) == "cuda:1"
    with computing_on("cuda:1") as named, computing_on("cpu") as cpu:
        assert (str(named), str(cpu)) == ("cuda:1", "cpu")


def test_products_on_a_gpu_are_not_rounded_to_tf32(two_gpus):
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with computing_on("cuda"):
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_a_gpu_that_is_not_there(two_gpus, monkeypatch):
    with pytest.raises(UserError, match="device=cuda:2: the last GPU here is cuda:1"):
        computing_on("cuda:2").__enter__()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with computing_on("auto") as device:
        assert str(device) == "cpu"
    with pytest.raises(UserError, match="device=cuda: torch sees no GPU here; take device=cpu"):
        computing_on("cuda").__enter__()


@pytest.mark.parametrize(
    "ask",
    [lambda: torch.empty(1 << 52), lambda: np.empty(1 << 56, np.uint8)],
    ids=["torch", "numpy"],
)
def test_too_little_memory_names_the_cure(ask):
    """More than any machine has, asked for in earnest."""
    with (
        pytest.raises(UserError, match=r"^the picture does not fit .* machine; .* image_size$"),
        fitting("the picture", torch.device("cpu")),
    ):
        ask()


def test_too_little_memory_of_a_gpu_names_the_cpu_too():
    message = "^it does not fit into the memory of cuda:1; .* smaller --image-size, or device=cpu$"
    gpu = torch.device("cuda:1")
    with pytest.raises(UserError, match=message), fitting("it", gpu, "--image-size"):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_another_error_is_no_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), fitting("it", torch.device("cpu")):
        raise RuntimeError("shapes do not fit")
