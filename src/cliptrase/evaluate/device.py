"""What a pass computes on: the CPU, or a GPU that no other pass has while it lasts; and threads.

A GPU is taken by a lock on a file that bears its UUID, so it is the same lock whatever number
CUDA_VISIBLE_DEVICES gives it, and whoever runs the pass. The system frees it when the process ends,
killed or not. Containers with a /tmp each do not see one another's locks. (Not with filelock: it
refuses a file in /tmp that another user made, and these are shared by all users.)
"""

import contextlib
import fcntl
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from cliptrase.errors import UserError
from cliptrase.machine import NO_GPU, gpu_name

log = logging.getLogger(__name__)

LOCKS = Path("/tmp")  # not TMPDIR: passes that have different ones must meet
NO_MEMORY = (  # what a plain RuntimeError says: torch's CPU allocator, CUDA and its libraries
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
POLL = 1.0  # seconds between two looks whether a GPU is free


@contextmanager
def computing_on(choice: str, *, alone: bool = False) -> Iterator[torch.device]:
    """The device that `device=` names (auto, cpu, cuda, cuda:N), in full fp32 until the end.

    `auto` is a GPU where there is one. A pass has its GPU `alone`: the one that is named, or else
    the first that no other pass has; while all are taken it waits, as long as that lasts. Anything
    else (a picture, a model to look at) waits for nobody and keeps nobody waiting: without a number
    it has the first GPU that no pass has, or GPU 0.

    Raises UserError for a GPU that is not there, and a lock file that cannot be used.
    """
    with ExitStack() as stack:
        device = _pick(choice, alone, stack)
        if device.type == "cuda":
            # What asks for no device (to free memory, to pin it) must not start on GPU 0.
            stack.enter_context(torch.cuda.device(device))
            _full_precision(stack)
        yield device


@contextmanager
def single_threaded_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of `workers` threads in which torch, BLAS and OpenMP start no further threads, so that
    a product on the CPU has one order of sums, however many threads there are.

    torch's number of threads is a setting of each thread, so every worker sets it. In the calling
    thread it holds too, until the end. The GPU of the calling thread is that of the others as well.
    Tasks that have not begun are dropped on an error.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    pool = ThreadPoolExecutor(workers, "image", initializer=_begin, initargs=(gpu,))
    try:
        with threadpool_limits(1):
            yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or numpy could not get the memory that they asked for, on any device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
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


def _pick(choice: str, alone: bool, stack: ExitStack) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "cpu" or (choice == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise UserError(f"device={choice}: {NO_GPU}")
    named = None if choice in ("auto", "cuda") else torch.device(choice).index
    if named is not None and named >= count:
        raise UserError(f"device={choice}: the last GPU here is cuda:{count - 1}")
    wanted = range(count) if named is None else [named]
    if alone:
        return torch.device("cuda", _taken(wanted, stack))
    return torch.device("cuda", _unlocked(wanted) if named is None else named)


def _taken(wanted: Sequence[int], stack: ExitStack) -> int:
    """The first of these GPUs that can be had, locked until the stack ends."""
    waiting = False
    while True:
        for index in wanted:
            if (lock := _locked(_lock_path(index))) is not None:
                stack.callback(_given_up, lock)
                return index
        if not waiting:
            which = f"all {len(wanted)} are" if len(wanted) > 1 else f"cuda:{wanted[0]} is"
            log.warning("waiting for a GPU: %s used by other passes", which)
            waiting = True
        time.sleep(POLL)


def _given_up(lock: int) -> None:
    """Unlock a GPU, once its memory is given back."""
    torch.cuda.empty_cache()
    fcntl.flock(lock, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor too
    os.close(lock)


def _unlocked(wanted: Sequence[int]) -> int:
    """The first of these GPUs that no pass has, the very first where all have one."""
    for index in wanted:
        with contextlib.suppress(UserError):
            if (lock := _locked(_lock_path(index))) is not None:
                os.close(lock)
                return index
    return wanted[0]


def _lock_path(index: int) -> Path:
    """The file that stands for a GPU itself, whatever its number is in this process."""
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None) or gpu_name(index)
    folder = LOCKS if os.access(LOCKS, os.W_OK) else Path(tempfile.gettempdir())
    name = re.sub(r"[^\w-]", "_", str(uuid).removeprefix("GPU-"))
    return folder / f"cliptrase-gpu-{name}.lock"


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock of a file until it is closed; None where another has it."""
    try:
        with ExitStack() as stack:
            lock = _opened(path)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock), os.stat(path)):
                return None  # cleared away before it was locked
            os.utime(lock)  # what clears /tmp takes old files first
            stack.pop_all()
            return lock
    except (BlockingIOError, FileNotFoundError):
        return None
    except OSError as error:
        raise UserError(
            f"{path}: no file to lock a GPU with ({error.strerror}); delete it, or take device=cpu"
        ) from error


def _opened(path: Path) -> int:
    """A lock file, made if need be: every user may lock it, and a link is not followed."""
    safely = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        # First without O_CREAT: in /tmp that would refuse the file of another user.
        lock = os.open(path, safely)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            lock = os.open(path, safely | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(lock, 0o666)  # whatever the umask
            return lock
        lock = os.open(path, safely)
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise OSError(0, "it is another kind of file")
    return lock


def _full_precision(stack: ExitStack) -> None:
    """Until the stack ends, neither TF32, which would move labels, nor sums of bf16 and fp16
    products in those."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    for place, switch in (
        (matmul, "allow_tf32"),
        (matmul, "allow_bf16_reduced_precision_reduction"),
        (matmul, "allow_fp16_reduced_precision_reduction"),
        (cudnn, "allow_tf32"),
    ):
        stack.callback(setattr, place, switch, getattr(place, switch))
        setattr(place, switch, False)


def _begin(gpu: int | None) -> None:
    torch.set_num_threads(1)
    if gpu is not None:
        torch.cuda.set_device(gpu)
