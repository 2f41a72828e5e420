"""What tests of estimates share: speeds of machines that are not there."""

from __future__ import annotations

from cliptrase.pipeline.estimate import speed, suite
from cliptrase.pipeline.estimate.speed import Speed
from cliptrase.pipeline.estimate.start import Start


def as_measured(suite_plan) -> Speed:
    return speed.reference(suite.blocks(suite_plan.passes.values()))


def estimated(suite_plan, passes=None, **more):
    names = list(suite_plan.passes) if passes is None else passes
    return suite.estimate(suite_plan, names, names, None, as_measured(suite_plan), Start(**more))


def probing(monkeypatch, answer):
    asked = []

    def ask(question):
        asked.append(question)
        return answer(question) if callable(answer) else answer

    monkeypatch.setattr(speed, "_ask", ask)
    return asked


def quick(question):
    blocks = {speed.name_of(tuple(one)): 1e-3 for one in question["blocks"]}
    return {"device": "cpu", "start": 3.0, "blocks": blocks, "pixel": 2e-9, "pixel_on_device": 2e-9}
