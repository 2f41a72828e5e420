"""benchmarks/precision.py: times of every precision, and shares of pixels that moved."""

from __future__ import annotations

import re

from benchmarks import precision


def test_it_prints_a_time_for_each_precision_and_the_pixels_that_moved(
    tmp_path, capsys, monkeypatch
):
    shares = {"bf16": 0.002, "fp16": 0.0001}
    monkeypatch.setattr(precision, "moved", lambda *_: iter([("shapes", "clip", 224, shares)]))
    precision.main(["--quick", "--data", str(tmp_path)])
    said = capsys.readouterr().out
    head = "| what | px | fp32 | bf16 | fp16 | bf16 is faster by | fp16 is faster by |"
    assert head in said
    for what in ("encoder", "CLIPtrase"):
        for size in (224, 336):
            line = rf"\| {what} \| {size} (\| [\d.]+ \[[\d.]+, [\d.]+\] ){{3}}(\| × [\d.]+ ){{2}}\|"
            assert re.search(line, said)
    assert "| shapes | clip | 224 | 0.200 % | 0.010 % |" in said
