"""benchmarks/gpu: the command of `make gpu` on a CPU, as far as that goes. No time is judged."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import limits, pixels
from benchmarks.gpu.place import QUICK, Part, Place
from tests.few_scenes import write_scenes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    data = write_scenes(tmp_path_factory.mktemp("data"), range(QUICK.images))
    return Place(torch.device("cpu"), QUICK, data)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_message(empty, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main([])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.count("\n") == 1
    assert "device=cuda: torch sees no GPU here" in said and not any(empty.iterdir())


def test_a_batch_that_does_not_fit_is_halved_and_moves_no_pixel(place):
    part = limits.memory(place)
    assert part.faults == [] and "batches of 2 → 1, 0 of 100,352" in part.lines[0][1]


def test_counts_that_a_halved_batch_changes_are_a_fault(place, monkeypatch):
    count = limits.counts
    seen = []

    def moving(predictor, images):
        tally = count(predictor, images)
        seen.append(tally)
        if len(seen) > 1:
            tally.confusion[0, 0] += 20
        return tally

    monkeypatch.setattr(limits, "counts", moving)
    (fault,) = limits.memory(place).faults
    assert "10 of 100,352 pixels moved" in fault


def test_pixels_that_differ_are_counted_listed_and_a_fault(place, monkeypatch):
    assert pixels.pixels(place).faults == []
    maps = pixels.label_maps

    def rounding(predictor, positions, together=1, threads=1):
        found = maps(predictor, positions, together, threads)
        if together > 1:
            name = next(name for name in found if "cliptrase" in name)
            found[name][1, 3, 4:9] += np.where(found[name][1, 3, 4:9] > 0, -1, 1).astype(np.int16)
        return found

    monkeypatch.setattr(pixels, "label_maps", rounding)
    part = pixels.pixels(place)
    assert [line[1].split(" pixels")[0] for line in part.lines] == ["5 of 200,704"] * 2
    assert len(part.faults) == 2 and "embedded benchmark, 224 px: 5 of" in part.faults[0]
    assert [(pixel.y, pixel.x) for pixel in part.pixels] == [(3, x) for x in range(4, 9)] * 2
    assert all(pixel.margin >= 0 for pixel in part.pixels)


def test_a_part_that_fails_or_begins_too_late_costs_no_other(place, monkeypatch):
    broken = {"cost": lambda _: 1 / 0, "lock": lambda _: Part(lines=[("a", "b", "c")])}
    monkeypatch.setattr(command, "PARTS", broken)
    assert command.measured(place, "cost", 100).faults == [
        "cost: ZeroDivisionError: division by zero"
    ]
    assert command.measured(place, "lock", 100) == Part(lines=[("a", "b", "c")])
    late = command.measured(place, "lock", 59)
    assert late.faults == ["lock: left out, as only 59 s were left"]


def test_a_part_that_takes_too_long_is_ended(place, monkeypatch):
    monkeypatch.setattr(command, "PARTS", {"lock": lambda _: time.sleep(60)})
    short = replace(place, scale=replace(QUICK, seconds=0.1))
    (fault,) = command.measured(short, "lock", 0.2).faults
    assert fault == "lock: TimeoutError: not done after 0 s, when its time was up"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.slow
def test_the_command_writes_what_it_measured_part_by_part(empty, place, monkeypatch, capsys):
    monkeypatch.setattr(command, "Place", lambda device, scale, data: replace(place, scale=scale))
    with pytest.raises(SystemExit) as ended:
        command.main(["--device", "cpu", "--quick", "--only", "memory", "cost", "--out", "there"])
    assert ended.value.code == 0
    said = json.loads((empty / "there/gpu.json").read_text())
    assert set(said) == {"about", "memory", "cost"} and said["about"]["gpu"].startswith("a CPU")
    table = (empty / "there/gpu.md").read_text()
    assert table in capsys.readouterr().out and "not as it must be" not in table
    whats = [line[0] for name in ("memory", "cost") for line in said[name]["lines"]]
    assert all(f"| {what} |" in table for what in whats) and len(whats) == 6
