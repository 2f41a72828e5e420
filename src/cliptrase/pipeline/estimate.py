"""What a start of a suite will cost here: the timings of its passes, times their images.

`probe.py` times the code of the passes on a random picture, in a process of its own; its answer is
believed for a day. On CPUs the cores share the seconds that one core would take.
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import psutil
from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError

from cliptrase import machine, pipeline
from cliptrase.config.predictions import NO_MODEL
from cliptrase.errors import UserError
from cliptrase.files import read_json, sha256_text, write_json
from cliptrase.pipeline import data as pipeline_data
from cliptrase.plan import Pass, Plan

KEPT = Path("results/speed.json")
PATIENCE = 900.0  # seconds that the probe may take
BELIEVED = 86400.0  # seconds that a timing is believed: the machine may have been busy
WORTH_A_PROBE = 600.0  # seconds of work: where a guess says less, nothing is timed
# Seconds of one core, and bytes, of what is not timed
GUESSED_START, GUESSED_IMAGE, GUESSED_ONCE, GUESSED_MEMORY = 5.0, 0.015, 0.12, 1.2e9
OPENED, WRITTEN = 1.0, 0.1  # a pass, beside the start of its code; a run, with its intervals
PREPARED, PREPARED_IMAGE = 3.0, 0.03  # a dataset
FINISHED, FINISHED_RUN = 15.0, 0.25  # Snakemake, tables, figures and W&B


class Timing(BaseModel):
    """Of a pass: seconds of one image, and of all that is done once; windows of an image."""

    image: PositiveFloat
    once: PositiveFloat
    windows: PositiveInt = 1


class Speed(BaseModel):
    """device: cpu, cuda or guess. start: seconds until a pass has loaded its code. memory: bytes of
    a pass. others: cores that other programs took meanwhile."""

    device: str
    start: PositiveFloat
    memory: PositiveFloat
    passes: dict[str, Timing]
    others: float = 0.0

    def alone(self, name: str, runs: int) -> float:
        """Seconds of a pass with so many runs beside its images."""
        return self.start + OPENED + WRITTEN * runs + self.passes[name].once


class PassCost(NamedTuple):
    """work: seconds of one core. seconds: by the clock. windows: of all its images, that an encoder
    sees."""

    name: str
    runs: int
    images: int
    windows: int
    work: float
    seconds: float


class Estimate(NamedTuple):
    """cores, gpus: that are used. at_once: passes. besides: seconds of all other steps. speed: None
    where this machine could not be timed."""

    passes: list[PassCost]
    cores: int
    gpus: int
    at_once: int
    besides: float
    speed: Speed | None

    @property
    def work(self) -> float:
        """Seconds of one core."""
        return self.besides + sum(each.work for each in self.passes)


def estimate(
    plan: Plan,
    made: list[Pass],
    cores: int | None,
    device: str,
    frozen: bool,
    again: bool,
    worth: float = WORTH_A_PROBE,
) -> Estimate:
    """Of a start that makes these passes. cores: Snakemake's, None for all. frozen: other code is
    no reason to make a run again. again: time them, however little and known they are. worth:
    seconds of guessed work from which on they are timed."""
    gpus, usable = machine.usable_gpus(device), pipeline.usable(cores)
    threads = pipeline.workers([each.name for each in made], gpus, cores)
    at_once = max(1, min(gpus or usable // threads, len(made)))
    lost = {each.name: pipeline.runs_to_predict(each, plan.data, frozen) for each in made}
    asked = {name: runs for name, runs in lost.items() if runs}
    files = {each.name for each in made if each.model == NO_MODEL.label}  # label maps are read
    question = {name: runs for name, runs in asked.items() if name not in files}
    besides = FINISHED + FINISHED_RUN * len(plan.runs)
    for dataset in pipeline_data.unprepared(made, plan.data):
        besides += PREPARED + PREPARED_IMAGE * pipeline_data.count(dataset, plan.data)

    guess = _guess(asked)

    def cost(a_pass: Pass, speed: Speed) -> PassCost:
        runs, images = len(lost[a_pass.name]), pipeline_data.images(a_pass, plan.data)
        timing = speed.passes.get(a_pass.name)
        if timing is None:  # its runs are there, and only the pass file is written
            return PassCost(a_pass.name, runs, images, 0, OPENED, OPENED)
        alone = speed.alone(a_pass.name, runs)
        streamed = images * timing.image
        windows = 0 if a_pass.name in files else images * timing.windows
        seconds = alone + streamed / (1 if gpus else threads)
        return PassCost(a_pass.name, runs, images, windows, alone + streamed, seconds)

    work = besides + sum(cost(each, guess).work for each in made)
    if question and (again or work > worth):
        speed = timed(plan.suite, question, device if gpus else "cpu", again=again)
        if speed:
            speed = speed.model_copy(update={"passes": guess.passes | speed.passes})
    else:
        speed = guess
    costs = [cost(each, speed) for each in made if speed]
    return Estimate(costs, usable, gpus, at_once, besides, speed)


def _guess(question: Mapping[str, list[str]]) -> Speed:
    passes = {
        name: Timing(image=GUESSED_IMAGE * len(runs), once=GUESSED_ONCE * len(runs))
        for name, runs in question.items()
    }
    return Speed(device="guess", start=GUESSED_START, memory=GUESSED_MEMORY, passes=passes)


def timed(
    suite: str, question: Mapping[str, list[str]], device: str, *, again: bool = False
) -> Speed | None:
    """The timings of some runs of passes, or those of the last day; None where the probe fails.

    Timings of the CPU are not kept where there is a GPU.
    """
    about = {
        "host": platform.node(),
        "cores": machine.cores(),
        "gpus": machine.gpu_uuids(),
        machine.VISIBLE: os.environ.get(machine.VISIBLE, ""),
        "torch": metadata.version("torch"),
        "device": device,
    }
    kept = read_json(KEPT) or {}
    whole = kept.pop("sha256", None) == _digest(kept)
    believed = whole and kept["about"] == about and 0 <= time.time() - kept["at"] < BELIEVED
    if believed and not again and question.items() <= kept["question"].items():
        return Speed.model_validate(kept["speed"])
    long = "minutes where other programs compute"
    sys.stderr.write(f"timing this machine, by passes over a random picture ({long}) …\n")
    start, before = time.monotonic(), _others()
    speed = _ask({"suite": suite, "device": device, "passes": question})
    if speed:
        speed.others = max(0.0, _others() - before) / max(1.0, time.monotonic() - start)
    if speed and (speed.device == "cuda" or not machine.usable_gpus(device)):
        answer = {"about": about, "at": time.time(), "question": question}
        answer |= {"speed": speed.model_dump()}
        with contextlib.suppress(UserError):
            write_json(KEPT, answer | {"sha256": _digest(answer)})
    return speed


def _digest(answer: Mapping[str, object]) -> str:
    """The sha256 of a kept answer, by which a damaged one is noticed and taken again."""
    return sha256_text(json.dumps(answer, sort_keys=True))


def _others() -> float:
    """Seconds that the cores which this process may use have computed for other programs."""
    allowed, kinds = os.sched_getaffinity(0), ("user", "nice", "system", "steal")
    times = [each for core, each in enumerate(psutil.cpu_times(percpu=True)) if core in allowed]
    busy = sum(getattr(each, kind, 0.0) for each in times for kind in kinds)
    return float(busy - sum(os.times()[:4]))


def _ask(question: Mapping[str, object]) -> Speed | None:
    """The answer of the probe, None where it fails."""
    command = [sys.executable, "-m", "cliptrase.pipeline.probe"]
    environment, words = os.environ | {"OMP_NUM_THREADS": "1"}, json.dumps(question).encode()
    try:
        done = subprocess.run(
            command, input=words, env=environment, capture_output=True, timeout=PATIENCE, check=True
        )
        return Speed.model_validate_json(done.stdout)
    except (OSError, subprocess.SubprocessError, ValidationError):
        return None
