"""What only a GPU can show, in at most 8 minutes and without network: `make gpu`, or
`python -m benchmarks.gpu`, writes results/gpu/gpu.json and gpu.md.

- `pixels`: GPU against CPU, pixel by pixel, on the embedded benchmark and on ViT-B/16 with random
  weights; each pixel that differs is listed with its margin;
- `cost`: CLIPtrase by its encoder, as `make bench` has it; how much of the GPU's arithmetic the
  encoder uses in fp32 and bf16; whether images can be loaded as fast;
- `memory`: a batch that does not fit is halved, and no pixel changes;
- `lock`: of two passes on one GPU the second waits, and both give the same run;
- `tests`: those marked cuda.

A part that would begin too late is left out and says so, one that is not done in time is ended; one
that fails costs no other. The exit
code is 1 where something is not as it must be; goals of speed that are missed are only said.
`--device cpu --quick` tries the command itself, without a GPU: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.gpu import cost, limits, pixels
from benchmarks.gpu.place import FULL, QUICK, Part, Place
from cliptrase.errors import exit_on_user_error
from cliptrase.evaluate.device import computing_on
from cliptrase.files import write_json, write_text
from cliptrase.machine import cores
from cliptrase.runs.provenance import commit, now, versions

log = logging.getLogger("benchmarks")

PARTS: dict[str, Callable[[Place], Part]] = {
    "pixels": pixels.pixels,
    "cost": cost.cost,
    "memory": limits.memory,
    "lock": limits.lock,
    "tests": limits.tests,
}


def measured(place: Place, name: str, left: float) -> Part:
    """A part, with `left` seconds left for it and all that follow."""
    if left < place.scale.seconds:
        return Part(faults=[f"{name}: left out, as only {max(0.0, left):.0f} s were left"])
    log.info("%s …", name)
    try:
        with ended_after(left):
            part = PARTS[name](place)
    except Exception as error:  # the other parts are worth as much as before
        log.error("%s", traceback.format_exc())
        return Part(faults=[f"{name}: {type(error).__name__}: {error}"])
    for line in part.lines:
        log.info("%s", ": ".join(line[:2]))
    return part


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread where what is done here takes longer."""

    def end(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s, when its time was up")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def markdown(done: Mapping[str, Part], about: Mapping[str, object]) -> str:
    """A line for each thing measured, then what is not as it must be."""
    head = f"{about['gpu']}, {about['cores']} cores, commit {about['commit']}, {about['started']}"
    lines = [head, "", "| what | measured | goal |", "|---|---|---|"]
    lines += [f"| {' | '.join(line)} |" for part in done.values() for line in part.lines]
    faults = [fault for part in done.values() for fault in part.faults]
    lines += ["", *(f"- **not as it must be**: {fault}" for fault in faults)]
    won = [pixel.margin for part in done.values() for pixel in part.pixels]
    if won:
        lines += ["", f"Margins of pixels that differ: {min(won):.1e} to {max(won):.1e}."]
    return "\n".join(lines).rstrip("\n") + "\n"


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a trial")
    parser.add_argument("--minutes", type=float, default=8.0, help="in all (8)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="all")
    parser.add_argument("--quick", action="store_true", help="a tiny model, hardly any repeats")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="results/gpu")
    options, start = parser.parse_args(arguments), time.monotonic()
    logging.basicConfig(level=logging.WARNING, format="%(relativeCreated)7d ms %(message)s")
    log.setLevel(logging.INFO)
    with computing_on(options.device) as device, tempfile.TemporaryDirectory() as folder:
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU (a trial)"
        about = {"gpu": gpu, "cores": cores(), "commit": commit(), "started": now()}
        prepare = [sys.executable, "-m", "cliptrase.data.make.prepare", "shapes", "--data", folder]
        subprocess.run(prepare, check=True, capture_output=True)
        place = Place(device, QUICK if options.quick else FULL, Path(folder))
        done: dict[str, Part] = {}
        for name in options.only:
            left = start + 60 * options.minutes - time.monotonic()
            done[name] = measured(place, name, left)
            said = {each: asdict(part) for each, part in done.items()}
            said |= {"about": {**about, "versions": versions()}}
            write_json(options.out / "gpu.json", json.loads(json.dumps(said)))
            write_text(options.out / "gpu.md", markdown(done, about))
    print(markdown(done, about))
    sys.exit(any(part.faults for part in done.values()))


if __name__ == "__main__":
    main()
