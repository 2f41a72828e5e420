"""The NVIDIA GPUs that passes may use, as far as that can be known without torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"


def usable(device: str) -> int:
    """How many GPUs passes with this `device=` (auto, cpu, cuda, cuda:N) may use, one a pass.

    CUDA_VISIBLE_DEVICES counts as it does for CUDA. Where no driver names a GPU, `auto` is the
    CPU; what asks for one has one, or as many as are listed: the pass says if that is wrong.
    """
    if device == "cpu":
        return 0
    if device not in ("auto", "cuda"):
        return 1
    here = uuids()
    if device == "auto":
        return len(visible(here)) if here else 0
    return max(1, len(visible(here or None)))


def visible(here: list[str] | None) -> list[str]:
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


def name_of(index: int) -> str:
    """What CUDA_VISIBLE_DEVICES calls the GPU that CUDA counts as `index`: its number or UUID."""
    entries = visible(None)
    return entries[index] if index < len(entries) else str(index)


def uuids(root: Path = Path("/")) -> list[str]:
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
        fields = dict(re.findall(r"(?m)^(GPU UUID|Device Minor)\s*:\s*(\S+)$", _text(file)))
        known[fields.get("Device Minor")] = fields.get("GPU UUID", "")
    found = [known.get(str(minor), "") for minor in minors]
    return ["" if "?" in uuid else uuid for uuid in found]  # GPU-????: not yet started


def _listed() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"(?m)^GPU \d+: .*\(UUID: (\S+)\)", done.stdout)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
