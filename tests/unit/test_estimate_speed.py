"""How fast a machine is said to be: what is timed, kept, believed and forgotten."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import pytest
import torch
from tests.unit.estimates import probing, quick

from cliptrase import config, machine
from cliptrase.model.precision import DTYPES
from cliptrase.pipeline.estimate import probe, speed
from cliptrase.pipeline.estimate.model import Shape


def test_a_probe_that_breaks_breaks_nothing(empty, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert speed.probed([(8, 5, 1, "fp32")], "cpu") is None
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert speed.probed([(8, 5, 1, "fp32")], "cpu") is None
    assert not speed.KEPT.exists()


def test_timings_of_another_machine_are_not_believed(empty, monkeypatch):
    asked = probing(monkeypatch, quick)
    one, other = (8, 5, 1, "fp32"), (16, 5, 1, "fp32")
    assert speed.probed([one], "cpu") and len(asked) == 1
    assert speed.probed([one], "cpu") and len(asked) == 1
    found = speed.probed([one, other], "cpu")
    assert found and asked[1]["blocks"] == [other], "only what is not known"
    both = {"8.5.1.fp32", "16.5.1.fp32"}
    assert found.blocks.keys() == both == speed.known([one], "cpu").blocks.keys()
    monkeypatch.setattr(speed.platform, "node", lambda: "elsewhere")
    assert speed.known([one], "cpu") is None
    speed.KEPT.write_text("{")
    assert speed.probed([one], "cpu") and len(asked) == 3
    assert speed.probed([one], "cpu", again=True) and len(asked) == 4, "it may have been busy"


def test_timings_are_forgotten_after_a_day(empty, monkeypatch):
    asked = probing(monkeypatch, quick)
    old, young = (8, 5, 1, "fp32"), (16, 5, 1, "fp32")
    speed.probed([old], "cpu")
    start = speed.time.time()
    monkeypatch.setattr(speed.time, "time", lambda: start + 0.9 * speed.BELIEVED)
    speed.probed([old, young], "cpu")
    monkeypatch.setattr(speed.time, "time", lambda: start + 1.1 * speed.BELIEVED)
    assert speed.known([young], "cpu") and not speed.known([old], "cpu")
    speed.probed([old, young], "cpu")
    assert [question["blocks"] for question in asked] == [[old], [young], [old]]
    monkeypatch.setattr(speed.time, "time", lambda: start - 60)
    assert speed.known([young], "cpu") is None, "of a clock that was wrong"


def test_timing_anew_keeps_what_other_suites_need(empty, monkeypatch):
    asked = probing(monkeypatch, quick)
    one, other = (8, 5, 1, "fp32"), (16, 5, 1, "fp32")
    speed.probed([one, other], "cpu")
    before = speed.known([one, other], "cpu")
    speed.probed([one], "cpu", again=True)
    after = speed.known([one, other], "cpu")
    assert asked[-1]["blocks"] == [one] and after
    assert after.at[speed.name_of(other)] == before.at[speed.name_of(other)]
    assert after.at[speed.name_of(one)] > before.at[speed.name_of(one)]


def test_an_answer_of_the_cpu_is_not_kept_where_there_is_a_gpu(empty, monkeypatch):
    asked = probing(monkeypatch, quick)
    block = (8, 5, 1, "fp32")
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    monkeypatch.setattr(machine, "gpu_uuids", list)
    assert speed.probed([block], "auto") and speed.known([block], "auto"), "there is none"
    monkeypatch.setattr(machine, "gpu_uuids", lambda: ["GPU-1"])
    assert speed.known([block], "auto") is None, "now there is one"
    found = speed.probed([block], "auto")
    assert found and found.device == "cpu" and speed.known([block], "auto") is None
    assert speed.probed([block], "cpu") and speed.known([block], "cpu"), "it was asked for"
    probing(monkeypatch, lambda question: quick(question) | {"device": "cuda"})
    assert speed.probed([block], "auto") and speed.known([block], "auto")
    monkeypatch.setattr(machine, "gpu_uuids", lambda: ["GPU-2"])
    assert speed.known([block], "auto") is None, "another one"
    assert len(asked) == 3


def test_the_wait_for_the_probe_is_said(empty, monkeypatch, capsys):
    probing(monkeypatch, quick)
    for expected in (1, 0):
        speed.probed([(8, 5, 1, "fp32")], "cpu")
        assert capsys.readouterr().err.count("timing this machine") == expected


def test_the_probe_takes_the_device_that_it_is_given(monkeypatch):
    chosen = []

    @contextmanager
    def computing_on(choice):
        chosen.append(choice)
        yield torch.device("cpu")

    monkeypatch.setattr(probe, "computing_on", computing_on)
    monkeypatch.setattr(probe, "SECONDS", 1e-4)
    said = probe.measure({"device": "cuda:1", "blocks": []})
    assert chosen == ["cuda:1"] and said["device"] == "cpu" and said["start"] > 0


@pytest.mark.parametrize("precision", list(DTYPES))
def test_a_block_is_timed_in_its_precision(monkeypatch, precision):
    seen = []
    monkeypatch.setattr(
        probe.vision, "block", lambda clip, _, tokens: seen.append((clip.blocks[0], tokens.dtype))
    )
    probe.block(64, 5, 1, precision, torch.device("cpu"))()
    ((block, entering),) = seen
    assert block.mlp.c_fc.weight.dtype == DTYPES[precision] and entering == torch.float32


def test_the_probe_times_what_it_is_asked(empty):
    found = speed.probed([(64, 5, 1, "bf16"), (64, 5, 3, "fp32")], "cpu")
    assert found and found.device == "cpu" and found.blocks.keys() == {"64.5.1.bf16", "64.5.3.fp32"}
    assert speed.known([(64, 5, 3, "fp32")], "cpu") == found


def test_shapes_of_all_models_that_ship_are_read(empty):
    for name in ("shapes_clip", "vit_b16", "vit_l14"):
        run = config.resolve([f"model={name}", "benchmark=shapes"])
        shape = Shape.of(run.model)
        assert shape.width % 64 == 0 and shape.patch == run.model.patch
