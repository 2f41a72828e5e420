"""Peak memory of a process of its own: `python -m benchmarks.memory` prints it as JSON."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.per_image import Setting
from benchmarks.scenery import SIZES, models, resolved
from benchmarks.timing import package_way

GB = 1e9


def peak(size: int, classes: int, eps: float, pictures: int, threads: int, tiny: bool) -> Any:
    """What `main` prints, of a new process."""
    command = [sys.executable, "-m", "benchmarks.memory", f"--size={size}", f"--eps={eps}"]
    command += [f"--classes={classes}", f"--pictures={pictures}", f"--threads={threads}"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        command + ["--tiny"] * tiny, check=True, stdout=subprocess.PIPE, text=True, cwd=root
    )
    return json.loads(done.stdout)


def peak_on_gpu(setting: Setting, classes: int) -> dict[str, float]:
    """GB that one run in batches allocates on the GPU beyond the loaded model."""
    device = setting.models.clip.device
    run = setting.cliptrase(classes, package_way(device, setting.threads))
    run()
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return {"added_gb": round((torch.cuda.max_memory_allocated(device) - held) / GB, 3)}


def main() -> None:
    """Load the model, see what the process holds, run CLIPtrase, and see its peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("size", int), ("classes", int), ("eps", float), ("pictures", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    loaded = models(options.tiny, sizes=SIZES[:1])
    method = resolved(options.size)
    method["regions"]["eps"] = options.eps
    setting = Setting(loaded, options.size, method, options.pictures, 1, options.threads)
    held = status("VmRSS")
    forgotten = forget_peak()
    run = setting.cliptrase(options.classes, package_way(loaded.clip.device, options.threads))
    run()
    highest = status("VmHWM") if forgotten else peak_so_far()
    found = {"held_gb": held / GB, "peak_gb": highest / GB, "added_gb": (highest - held) / GB}
    rounded: dict[str, Any] = {name: round(value, 3) for name, value in found.items()}
    print(json.dumps(rounded | {"pictures": options.pictures, "threads": options.threads}))


def forget_peak() -> bool:
    """Let the kernel begin anew with the highest memory of this process; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_so_far() -> int:
    """Bytes, loading included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def status(key: str) -> int:
    """A size of this process in bytes, as /proc/self/status has it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise ValueError(f"/proc/self/status has no {key}")


if __name__ == "__main__":
    main()
