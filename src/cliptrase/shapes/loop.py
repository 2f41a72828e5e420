"""A training loop that may be interrupted anywhere: it goes on from its checkpoint, bit for bit."""

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from cliptrase.files import atomic_write

SAVE_EVERY, LOG_EVERY = 100, 50  # steps
report = functools.partial(print, flush=True)


class Part(Protocol):
    """What a checkpoint holds: a module, an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """All that training changes of it."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take such a state back."""


def run(
    step: Callable[[int], tuple[float, ...]],
    parts: dict[str, Part],
    steps: int,
    recipe: dict[str, Any],
    checkpoint: Path,
    stop: int | None = None,
) -> dict[str, Any]:
    """Take `steps` steps, or those that `checkpoint` lacks; up to step `stop`. Returns the record.

    `step` gets a step's number, changes the parts and returns its losses. The record holds losses
    [[step, means since the last entry]] and seconds of wall time. Raises ValueError where the
    checkpoint is of another recipe.
    """
    start, written = 0, json.dumps(recipe)
    record: dict[str, Any] = {"losses": [], "seconds": 0.0}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["recipe"] != written:
            raise ValueError(f"{checkpoint} belongs to another recipe; delete it to start anew")
        for name, part in parts.items():
            part.load_state_dict(saved["parts"][name])
        start, record = saved["step"], saved["record"]
        report(f"going on from step {start}")
    recent: list[tuple[float, ...]] = record.pop("recent", [])
    end = steps if stop is None else stop
    clock = time.perf_counter()
    for done in range(start + 1, end + 1):
        recent.append(step(done - 1))
        if done % LOG_EVERY == 0 or done == end:
            now = time.perf_counter()
            record["seconds"] += now - clock
            speed, clock = (now - clock) / len(recent), now
            if done % LOG_EVERY == 0 or done == steps:
                means = [sum(each) / len(recent) for each in zip(*recent, strict=True)]
                record["losses"].append([done, *means])
                numbers = " ".join(f"{mean:.4f}" for mean in means)
                report(f"step {done}/{steps}  loss {numbers}  {speed:.2f} s a step")
                recent = []
        if done % SAVE_EVERY == 0 or done == end:
            saved = {
                "recipe": written,
                "parts": {name: part.state_dict() for name, part in parts.items()},
                "step": done,
                "record": record | {"recent": recent},
            }
            with atomic_write(checkpoint) as file:
                torch.save(saved, file)
    return record
