"""Which device a pass takes: passes that run at once spread over the GPUs, and wait for one."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cliptrase.errors import UserError
from cliptrase.evaluate import device, passes
from cliptrase.evaluate.device import computing_on, fitting, single_threaded_pool

WAITING = "waiting for a GPU: "


@pytest.fixture
def seen(tmp_path, monkeypatch) -> SimpleNamespace:
    """A machine that seems to have GPUs; `uuids` are those that CUDA shows, in its order."""
    there = SimpleNamespace(uuids=["a-1", "b-2"], current=[])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(there.uuids))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=there.uuids[index])
    )

    @contextlib.contextmanager
    def chosen(one):
        there.current.append(str(one))
        yield
        there.current.pop()

    monkeypatch.setattr(torch.cuda, "device", chosen)
    monkeypatch.setattr(device, "LOCKS", tmp_path)
    monkeypatch.setattr(device, "time", SimpleNamespace(sleep=no_waiting))
    return there


def no_waiting(_: float) -> None:
    raise AssertionError("it waits for a GPU")


def a_pass(choice: str = "auto") -> contextlib.AbstractContextManager[torch.device]:
    return computing_on(choice, alone=True)


def after(what, monkeypatch) -> list[float]:
    """Have `what` happen while somebody waits; how long each wait was, once there were some."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            what()

    monkeypatch.setattr(device, "time", SimpleNamespace(sleep=sleep))
    return waits


def test_each_pass_has_a_gpu_of_its_own(seen):
    with a_pass() as first:
        with a_pass("cuda") as second:
            assert (str(first), str(second)) == ("cuda:0", "cuda:1")
        with a_pass() as again:
            assert str(again) == "cuda:1"
    with a_pass("cuda:1") as named, a_pass("cpu") as cpu, a_pass() as third:
        assert (str(named), str(cpu), str(third)) == ("cuda:1", "cpu", "cuda:0")


def test_a_pass_waits_while_all_gpus_are_taken(seen, monkeypatch, caplog):
    with a_pass(), contextlib.ExitStack() as second:
        second.enter_context(a_pass())
        waits = after(second.close, monkeypatch)
        with a_pass() as third:
            assert str(third) == "cuda:1"
    assert waits == [device.POLL] * 3
    assert caplog.messages == [f"{WAITING}all 2 are used by other passes"], "it is said once"


def test_a_pass_waits_for_the_gpu_that_is_named(seen, monkeypatch, caplog):
    with contextlib.ExitStack() as first:
        first.enter_context(a_pass())
        waits = after(first.close, monkeypatch)
        with a_pass("cuda:0") as second:
            assert str(second) == "cuda:0" and len(waits) == 3
    assert caplog.messages == [f"{WAITING}cuda:0 is used by other passes"]


def test_waiting_ends_with_ctrl_c(seen, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(device, "time", SimpleNamespace(sleep=interrupt))
    with a_pass("cuda:0"):
        with pytest.raises(KeyboardInterrupt):
            a_pass("cuda:0").__enter__()
        with a_pass() as other:
            assert str(other) == "cuda:1"


def test_a_gpu_has_one_lock_whatever_its_number(seen, monkeypatch):
    with a_pass() as first:  # a-1
        seen.uuids.reverse()  # another process, with CUDA_VISIBLE_DEVICES=1,0
        with a_pass() as second:
            assert (str(first), str(second)) == ("cuda:0", "cuda:0")
            seen.uuids[:] = ["a-1"]  # and CUDA_VISIBLE_DEVICES=0
            monkeypatch.setattr(device, "time", SimpleNamespace(sleep=lambda _: 1 / 0))
            with pytest.raises(ZeroDivisionError):
                a_pass().__enter__()


def test_without_a_uuid_the_environment_names_a_gpu(seen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace())

    def file(visible: str, index: int):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return device._lock_path(index)

    assert file("1", 0) == file("0,1", 1) == file("1,0", 0) != file("0,1", 0)
    assert file("GPU-b-2", 0) == file("GPU-a-1,GPU-b-2", 1)
    assert file("MIG-x", 0) != file("MIG-y", 0)


def test_a_uuid_is_the_same_name_wherever_it_comes_from(seen, monkeypatch):
    path = device._lock_path(1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b-2")
    assert device._lock_path(0) == path


def test_a_pass_that_is_killed_frees_its_gpu(seen):
    holding = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(device._lock_path(0))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        try:
            assert other.stdout.readline() == "held\n"
            with a_pass() as second:
                assert str(second) == "cuda:1", "the other process has the first"
            other.send_signal(signal.SIGKILL)
            other.wait()
            with a_pass() as first:
                assert str(first) == "cuda:0"
        finally:
            other.kill()


def test_every_user_may_lock_a_gpu(seen, tmp_path):
    before = os.umask(0o077)
    try:
        with a_pass():
            (file,) = tmp_path.iterdir()
    finally:
        os.umask(before)
    assert file.name == "cliptrase-gpu-a-1.lock" and stat.S_IMODE(file.stat().st_mode) == 0o666
    with a_pass() as again:
        assert str(again) == "cuda:0", "the file stays, the lock does not"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_lock_file_is_left_alone(kind, seen, tmp_path):
    path, target = device._lock_path(0), tmp_path / "target"
    target.write_text("precious")
    if kind == "link":
        path.symlink_to(target)
    else:
        {"pipe": os.mkfifo, "folder": os.mkdir}[kind](path)
    with pytest.raises(UserError, match=rf"^{path}: no file to lock a GPU with \(.+\); delete it"):
        a_pass().__enter__()
    assert target.read_text() == "precious"
    with computing_on("auto") as picture:
        assert str(picture) == "cuda:1", "a picture needs no lock"


def test_a_lock_file_that_was_cleared_away_is_no_lock(seen, monkeypatch):
    """Between opening and locking it somebody clears /tmp and another pass locks a new file."""
    path, opened = device._lock_path(0), device._opened

    def cleared(_):
        lock = opened(path)
        path.unlink()
        return lock

    monkeypatch.setattr(device, "_opened", cleared)
    assert device._locked(path) is None and not path.exists()


def test_a_picture_waits_for_nobody_and_keeps_nobody_waiting(seen):
    with computing_on("auto") as picture, computing_on("cuda:1") as named, a_pass() as first:
        assert (str(picture), str(named), str(first)) == ("cuda:0", "cuda:1", "cuda:0")
        with computing_on("auto") as beside, a_pass() as second, computing_on("cuda") as third:
            assert (str(beside), str(second), str(third)) == ("cuda:1", "cuda:1", "cuda:0")


def test_a_pass_takes_its_gpu_alone(runs_of, make, tmp_path, monkeypatch):
    def asked(*choice, **options):
        raise UserError(f"asked for {choice} {options}")

    monkeypatch.setattr(passes, "computing_on", asked)
    with pytest.raises(UserError, match=r"\('auto',\) {'alone': True}"):
        make(runs_of(["method=clip"]), tmp_path, device="auto")


def test_what_names_no_device_is_done_on_the_gpu_of_the_pass(seen, monkeypatch):
    """Else freeing memory, and pinning it in the threads of the pass, would start on GPU 0."""
    with a_pass("cuda:1"):
        assert seen.current == ["cuda:1"]
    assert seen.current == []
    set_by: dict[str, int] = {}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda one: set_by.update({threading.current_thread().name: one})
    )
    with single_threaded_pool(1) as pool:
        pool.submit(int).result()
    assert set_by == {"image_0": 1}


@pytest.mark.parametrize(
    "switch",
    [
        "allow_tf32",
        "allow_bf16_reduced_precision_reduction",
        "allow_fp16_reduced_precision_reduction",
    ],
)
def test_products_and_their_sums_on_a_gpu_are_not_rounded(seen, switch):
    matmul = torch.backends.cuda.matmul
    before = getattr(matmul, switch)
    setattr(matmul, switch, True)
    try:
        with computing_on("cuda"):
            assert not getattr(matmul, switch)
            assert not torch.backends.cudnn.allow_tf32
        assert getattr(matmul, switch)
    finally:
        setattr(matmul, switch, before)


def test_a_gpu_that_is_not_there(seen, monkeypatch):
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


@pytest.mark.parametrize("words", device.NO_MEMORY)
def test_a_library_that_gets_no_memory_lacks_memory(words):
    with pytest.raises(UserError, match="does not fit"), fitting("it", torch.device("cuda")):
        raise RuntimeError(f"{words}: when calling `cublasCreate(handle)`")


def test_another_error_is_no_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), fitting("it", torch.device("cpu")):
        raise RuntimeError("shapes do not fit")
