"""What this machine offers: CPU cores (within quotas) and NVIDIA GPUs. Loads no torch."""

import argparse
import contextlib
import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cliptrase.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
NO_GPU = "torch sees no GPU here; take device=cpu"
# Device files of GPUs: NVIDIA's, those of its boards, AMD's, and that of Windows' Linux
GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")


def positive(text: str) -> int:
    """A number of threads or images on a command line, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def cores() -> int:
    """Cores that this process may use, 1 or more.

    Those of its affinity, or fewer where a control group allows less of their time (`docker run
    --cpus 2`, a Kubernetes limit): 1.5 cores count as one.
    """
    pinned, quota = len(os.sched_getaffinity(0)), cpu_quota()
    return pinned if quota is None else max(1, min(pinned, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """How many cores' worth of time the control groups of this process allow; None: all.

    The least of what its own group and those above say, in version 1 or 2. `root`: of the files.
    """
    quotas = [_quota(folder) for folder in _groups(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the groups that this process is in, as far as they can be seen from here.

    In a container the own group is what is mounted, whatever name it has outside.
    """
    listed = (line.split(":", 2) for line in _lines(root / "proc/self/cgroup"))
    own = {controllers: path for _, controllers, path in listed}  # version 2 has no controllers
    for line in _lines(root / "proc/self/mounts"):
        _, mount, kind, options, *_ = line.split(" ")
        if kind == "cgroup2":
            paths = [own.get("", "/")]
        elif kind == "cgroup" and "cpu" in options.split(","):
            paths = [path for names, path in own.items() if "cpu" in names.split(",")]
        else:
            continue
        for path in paths:
            group = Path(path.lstrip("/"))
            yield from (root / mount.lstrip("/") / one for one in (group, *group.parents))


def _quota(group: Path) -> float | None:
    """The cores of one group by cpu.max (version 2) or cpu.cfs_quota_us (1); None: no limit."""
    said = " ".join(_lines(group / "cpu.max")).split()
    if not said:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        said = [line for name in names for line in _lines(group / name)]
    try:
        quota, period = map(int, said)  # "max" is no number
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def usable_gpus(device: str) -> int:
    """How many GPUs passes with this `device=` (auto, cpu, cuda, cuda:N) may use, one a pass.

    CUDA_VISIBLE_DEVICES counts as it does for CUDA. Where no driver names a GPU, `auto` is the
    CPU; what asks for one has one, or as many as are listed: the pass says if that is wrong.
    """
    if device == "cpu":
        return 0
    if device not in ("auto", "cuda"):
        return 1
    here = gpu_uuids()
    if device == "auto":
        return len(visible_gpus(here)) if here else 0
    return max(1, len(visible_gpus(here or None)))


def visible_gpus(here: list[str] | None) -> list[str]:
    """What CUDA_VISIBLE_DEVICES leaves of the GPUs that are here, a number or UUID each, in order.

    As CUDA reads it: up to the first entry that is no GPU here; none at all where one is repeated;
    of instances of a divided GPU (MIG) the first. here: their UUIDs, "" where unknown, None where
    nothing is known: every entry is believed then.
    """
    said = os.environ.get(VISIBLE)
    if said is None:
        return [str(index) for index in range(len(here or ()))]
    taken: list[str] = []
    for entry in map(str.strip, said.split(",")):
        number = re.match(r"\+?(\d+)", entry)
        if entry.startswith("MIG-"):
            return taken or [entry]
        if number:
            entry, known = str(int(number[1])), here is None or int(number[1]) < len(here)
        else:
            known = entry.startswith("GPU-") and (
                here is None or any(not uuid or uuid.startswith(entry) for uuid in here)
            )
        if entry in taken:
            return []
        if not known:
            break
        taken.append(entry)
    return taken


def check_gpu(device: str) -> None:
    """Raise UserError where `device=` asks for a GPU and the machine surely has none."""
    if device not in ("auto", "cpu") and not may_have_gpu():
        raise UserError(f"device={device}: {NO_GPU}")


def may_have_gpu(root: Path = Path("/"), driver: str = "libcuda.so.1") -> bool:
    """Whether there is the device file of a GPU, or the driver's library; torch alone is sure."""
    if any(any((root / "dev").glob(name)) for name in GPU_FILES):
        return True
    with contextlib.suppress(OSError):
        return bool(ctypes.CDLL(driver))
    return False


def gpu_name(index: int) -> str:
    """What CUDA_VISIBLE_DEVICES calls the GPU that CUDA counts as `index`: its number or UUID."""
    entries = visible_gpus(None)
    return entries[index] if index < len(entries) else str(index)


def gpu_uuids(root: Path = Path("/")) -> list[str]:
    """The GPUs of the machine or container, by their UUIDs, "" where that is not known.

    By the device files, as a container may have a few of those that /proc shows; where there are
    none (Windows' Linux), what nvidia-smi lists.
    """
    names = [file.name.removeprefix("nvidia") for file in (root / "dev").glob("nvidia*")]
    minors = sorted(int(name) for name in names if name.isdigit())
    if not minors:
        return _listed()
    known = {}
    for file in (root / "proc/driver/nvidia/gpus").glob("*/information"):
        text = "\n".join(_lines(file))
        fields = dict(re.findall(r"(?m)^(GPU UUID|Device Minor)\s*:\s*(\S+)$", text))
        known[fields.get("Device Minor")] = fields.get("GPU UUID", "")
    found = [known.get(str(minor), "") for minor in minors]
    return ["" if "?" in uuid else uuid for uuid in found]  # GPU-????: not yet started


def _listed() -> list[str]:
    command = ["nvidia-smi", "-L"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"(?m)^GPU \d+: .*\(UUID: (\S+)\)", done.stdout)
