"""A training: its command line, learning rate, optimiser, checkpoints, and going on from one."""

import argparse
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cliptrase.files import atomic_write

ROOT = Path(__file__).parents[3]
SAVE_EVERY = 5  # entries of the loss curve
report = functools.partial(print, flush=True)


def options(
    argv: Sequence[str] | None,
    doc: str | None,
    folder: str,
    counts: Mapping[str, int],
    **flags: str,
) -> argparse.Namespace:
    """What the command line of a training says: its counts, by their names (steps, scenes), `store`
    for scenes and checkpoints, `out`, else assets/`folder`, `threads`, and flags, by their help.

    Torch has the threads from here on, and only deterministic algorithms.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    for name, count in counts.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--store", type=Path, default=ROOT / "data" / "shapes_train")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / folder)
    parser.add_argument("--threads", type=int, default=1)
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    # Nothing reads memory before it is written, and filling it takes an eighth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return args


def half_cosine(step: int, steps: int, peak: float, warm_up: int) -> float:
    """Learning rate: linear warm-up to `peak`, then half a cosine to zero, by steps."""
    warm_up = min(warm_up, steps // 4)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return peak * 0.5 * (1 + float(np.cos(np.pi * done)))


def adamw(
    model: nn.Module, weight_decay: float, betas: tuple[float, float], eps: float
) -> torch.optim.Optimizer:
    """AdamW over what requires a gradient; gains, biases and single numbers do not decay."""
    learnt = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learnt if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learnt if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=betas, eps=eps)


def descend(
    model: nn.Module, optimizer: torch.optim.Optimizer, rate: float, loss: torch.Tensor
) -> float:
    """One step down the gradient of `loss`, clipped at norm 1. Returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def run(
    recipe: dict[str, Any],
    steps: int,
    checkpoint: Path,
    parts: Mapping[str, Any],
    take: Callable[[int], float],
    *,
    every: int,
    stop: int | None = None,
) -> dict[str, Any]:
    """Take the steps 0, 1, … of a training, or go on from `checkpoint`; up to step `stop`.

    `recipe` is all that decides the weights, as JSON has it. `take` makes a step from its number
    and returns its loss; `parts`, with a state_dict each, is all that it changes. Returns the
    record: losses [(step, mean loss since the last entry)], one `every` so many steps, seconds of
    wall time, the threads that it began with, and the recipe. Raises ValueError where
    the checkpoint is of another recipe.
    """
    text = json.dumps(recipe)
    start = 0
    record: dict[str, Any] = {"losses": [], "seconds": 0.0, "threads": torch.get_num_threads()}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["recipe"] != text:
            raise ValueError(f"{checkpoint} belongs to another recipe; delete it to start anew")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        start, record = saved["step"], saved["record"]
        report(f"going on from step {start}")
    recent: list[float] = record.pop("recent", [])
    end = steps if stop is None else stop
    clock = time.perf_counter()
    for step in range(start, end):
        recent.append(take(step))
        done = step + 1
        if done % every == 0 or done == end:
            now = time.perf_counter()
            record["seconds"] += now - clock
            pace, clock = (now - clock) / len(recent), now
            if done % every == 0 or done == steps:
                record["losses"].append((done, sum(recent) / len(recent)))
                loss = record["losses"][-1][1]
                report(f"step {done}/{steps}  loss {loss:.4f}  {pace:.2f} s a step")
                recent = []
        if done % (every * SAVE_EVERY) == 0 or done == end:
            saved = {"recipe": text, "step": done, "record": record | {"recent": recent}}
            saved |= {name: part.state_dict() for name, part in parts.items()}
            with atomic_write(checkpoint) as file:
                torch.save(saved, file)
    return record | {"recipe": recipe}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write what `run` returned, and what else is to be said of a training, beside its weights."""
    with atomic_write(folder / "training.json", "w") as file:
        json.dump(record, file, indent=1)
