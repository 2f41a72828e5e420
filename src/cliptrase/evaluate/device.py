"""The device that a pass computes on: the CPU, or a GPU that no other pass here has taken."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import torch

from cliptrase.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def computing_on(choice: str) -> Iterator[torch.device]:
    """The device that `device=` names (auto, cpu, cuda, cuda:N), in full fp32 until the end.

    `auto` is a GPU where there is one. Without a number, the first GPU that no other pass of this
    user has locked is taken, or GPU 0 where all are. Raises UserError for a GPU that is not there.
    """
    with ExitStack() as stack:
        device = _pick(choice, stack)
        if device.type == "cuda":
            stack.enter_context(_full_precision())
        yield device


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or numpy could not get the memory that they asked for, on any device."""
    # On the CPU torch raises a plain RuntimeError of its DefaultCPUAllocator.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


@contextmanager
def fitting(what: str, device: torch.device, size_option: str = "image_size") -> Iterator[None]:
    """Turn a lack of memory into one UserError: `what` does not fit, with the cure."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        cpu = device.type == "cpu"
        where, other = ("this machine", "") if cpu else (str(device), ", or device=cpu")
        raise UserError(
            f"{what} does not fit into the memory of {where}; take a smaller {size_option}{other}"
        ) from error


def _pick(choice: str, stack: ExitStack) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "cpu" or (choice == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise UserError(f"device={choice}: torch sees no GPU here; take device=cpu")
    if choice not in ("auto", "cuda"):
        device = torch.device(choice)
        if device.index is not None and device.index >= count:
            raise UserError(f"device={choice}: the last GPU here is cuda:{count - 1}")
        return device
    for index in range(count):
        lock = stack.enter_context(_lock_file(index))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return torch.device("cuda", index)
    log.warning("every GPU is taken by another pass; sharing cuda:0")
    return torch.device("cuda", 0)


@contextmanager
def _lock_file(index: int) -> Iterator[IO[str]]:
    """A file for GPU `index` that this user's passes lock; the system unlocks it when we end."""
    name = getattr(torch.cuda.get_device_properties(index), "uuid", index)
    path = Path(tempfile.gettempdir()) / f"cliptrase-{os.getuid()}-gpu-{name}.lock"
    with open(path, "w", encoding="utf-8") as file:
        yield file


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32, in products or convolutions: it would move labels."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
