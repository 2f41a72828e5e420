"""How fast this machine is, timed once and kept in results/speed.json. Loads no torch itself."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from cliptrase import machine
from cliptrase.errors import UserError
from cliptrase.files import read_json, write_json
from cliptrase.pipeline.estimate.model import block_operations

KEPT = Path("results/speed.json")
PATIENCE = 60.0  # seconds that the probe may take
BELIEVED = 86400.0  # seconds that a timing is: the machine may have been busy
# What the probe said where the figures of costs.py were measured.
REFERENCE_START, REFERENCE_PIXEL, REFERENCE_OPERATIONS = 3.0, 2.2e-9, 8e10

Block = tuple[int, int, int, str]  # width, tokens, how many at once, precision


@dataclass(frozen=True)
class Speed:
    """What estimate/probe.py found.

    device: cpu | cuda. start: seconds until a pass has loaded its code. blocks: seconds of one
    transformer block, by `name_of`; on a GPU of one image in a batch. pixel: seconds of a CPU core
    for one name at one pixel; pixel_on_device: on the device. at: when a block was timed, in
    seconds since 1970.
    """

    device: str
    start: float
    blocks: dict[str, float]
    pixel: float
    pixel_on_device: float
    at: dict[str, float] = field(default_factory=dict)

    @property
    def slower(self) -> float:
        """How much slower a core is here than where the figures of costs.py were measured."""
        return self.pixel / REFERENCE_PIXEL

    @property
    def device_slower(self) -> float:
        """The same of what is computed on the device."""
        return self.pixel_on_device / REFERENCE_PIXEL

    def block(self, block: Block) -> float:
        """Seconds."""
        return self.blocks[name_of(block)]


def name_of(block: Block) -> str:
    return ".".join(map(str, block))


def reference(blocks: Iterable[Block]) -> Speed:
    """Of the machine that the figures of costs.py were measured on; in any precision as in fp32."""

    def took(width: int, tokens: int, batch: int, _: str) -> float:
        return batch * block_operations(width, tokens) / REFERENCE_OPERATIONS

    seconds = {name_of(one): took(*one) for one in blocks}
    return Speed("cpu", REFERENCE_START, seconds, REFERENCE_PIXEL, REFERENCE_PIXEL)


def known(blocks: Iterable[Block], device: str, kept: Path = KEPT) -> Speed | None:
    """The speed of this machine at these blocks, if it was timed before."""
    found = _read(device, kept)
    return found if found and {name_of(one) for one in blocks} <= found.blocks.keys() else None


def probed(
    blocks: Iterable[Block], device: str, kept: Path = KEPT, *, again: bool = False
) -> Speed | None:
    """The speed of this machine at these blocks; timed, and written to `kept`, if it is not known.

    device: auto | cpu | cuda | cuda:N. again: time what is known too, since the machine may have
    been busy then. None where it cannot be timed; raises nothing. An answer of the CPU is not kept
    where there is a GPU: the next start asks that again.
    """
    wanted = set(blocks)
    before = _read(device, kept)
    known = before.blocks if before and not again else {}
    lacking = [one for one in sorted(wanted) if name_of(one) not in known]
    if before and not lacking:
        return before
    sys.stderr.write("timing this machine for some seconds …\n")
    found = _speed(_ask({"device": device, "blocks": lacking}))
    if found is None:
        return None
    found = replace(found, at=dict.fromkeys(found.blocks, time.time()))
    if before and before.device == found.device:
        found = replace(found, blocks=before.blocks | found.blocks, at=before.at | found.at)
    if found.device == "cuda" or not machine.usable_gpus(device):
        with contextlib.suppress(UserError):
            write_json(kept, asdict(found) | {"about": _about(device)})
    return found if {name_of(one) for one in wanted} <= found.blocks.keys() else None


def _read(device: str, kept: Path) -> Speed | None:
    """What is kept of this machine and not too old, None where that is nothing."""
    before = read_json(kept) or {}
    found = _speed(before) if before.get("about") == _about(device) else None
    if found is None:
        return None
    now = time.time()
    young = {name: at for name, at in found.at.items() if 0 <= now - at < BELIEVED}
    blocks = {name: took for name, took in found.blocks.items() if name in young}
    return replace(found, blocks=blocks, at=young) if blocks else None


def _about(device: str) -> dict[str, Any]:
    """What the timings hold for."""
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "none"
    return {
        "host": platform.node(),
        "cores": machine.cores(),
        "torch": torch,
        "device": device,
        "gpus": machine.gpu_uuids(),
        machine.VISIBLE: os.environ.get(machine.VISIBLE, ""),
    }


def _ask(question: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "cliptrase.pipeline.estimate.probe", json.dumps(question)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=PATIENCE, check=True, env=environment
        )
        said = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}
    return said if isinstance(said, dict) else {}


def _speed(said: dict[str, Any]) -> Speed | None:
    try:
        speed = Speed(
            str(said["device"]),
            float(said["start"]),
            {str(name): float(took) for name, took in said["blocks"].items()},
            float(said["pixel"]),
            float(said["pixel_on_device"]),
            {str(name): float(at) for name, at in said.get("at", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    figures = [speed.start, speed.pixel, speed.pixel_on_device, *speed.blocks.values()]
    return speed if all(0 < one < 1e6 for one in figures) else None
