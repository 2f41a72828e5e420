"""Peak memory of CLIPtrase beyond the loaded model, on a CPU in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.per_image import Setting
from benchmarks.scenery import SIZES, models

GB = 1e9


def peak(setting: Setting, classes: int, tiny: bool) -> dict[str, Any]:
    """GB that a new process holds with the model, and at the peak of a run."""
    amount = (setting.size, setting.method, setting.pictures, 1, setting.threads)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_in_this_process, classes, tiny, *amount).result()


def _in_this_process(classes: int, tiny: bool, *amount: Any) -> dict[str, Any]:
    setting = Setting(models(tiny, sizes=SIZES[:1]), *amount)
    held = _bytes("VmRSS")
    with contextlib.suppress(OSError):  # the kernel forgets the peak so far, where it can
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    setting.cliptrase(classes, setting.package_way)()
    highest = _bytes("VmHWM")
    sizes = {"held_gb": held, "peak_gb": highest, "added_gb": highest - held}
    figures = {name: round(size / GB, 3) for name, size in sizes.items()}
    return {**figures, "pictures": setting.pictures, "threads": setting.threads}


def _bytes(key: str) -> int:
    """Memory of this process as /proc/self/status has it: now (VmRSS), at the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(":", 1) for line in lines)[key].split()[0]) * 1024


def peak_on_gpu(setting: Setting, classes: int) -> dict[str, Any]:
    """GB that a run in batches allocates on the GPU beyond the loaded model."""
    device = setting.models.clip.device
    run = setting.cliptrase(classes, setting.package_way)
    run()
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return {"added_gb": round((torch.cuda.max_memory_allocated(device) - held) / GB, 3)}
