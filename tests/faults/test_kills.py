"""A short draw of the campaign of kills (benchmarks/kills): the same code, a few boundaries."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from benchmarks.kills import report, suite
from benchmarks.kills.draws import Draw

# Draws kills of each of these scenes by a fixed seed, in a process that loads no torch.
SCRIPT = """
import json, os, random, sys
from dataclasses import asdict
from pathlib import Path
from benchmarks.kills import __main__ as kills, scenes, suite
from benchmarks.kills.draws import Bench

place = Path(sys.argv[1])
scenes.warm(scenes.DATA_MODULES)
suite.write(place)
with suite.served(place) as mirror:
    for name in ("download", "preparation"):
        bench = Bench(scenes.SCENES[name], place, mirror)
        for moments in kills.plan(bench.moments(), 8, bench.whole.seconds, random.Random(7)):
            print(json.dumps(asdict(bench.draw(moments))))
"""


def test_what_was_killed_is_the_same_bytes_when_it_is_done_again(tmp_path):
    place = tmp_path / "place"
    command = [sys.executable, "-c", SCRIPT, str(place)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=suite.environment(place),
        capture_output=True,
        text=True,
        check=True,
    )
    draws = [Draw(**json.loads(line)) for line in done.stdout.splitlines()]
    assert Counter(draw.scene for draw in draws) == {"download": 7, "preparation": 7}
    assert report.kills(draws) >= 14, "two draws have a second kill, which may come too late"
    assert [draw for draw in draws if draw.hand or draw.differing or draw.left] == []


WRITES = """
import os, sys
from pathlib import Path
from benchmarks.kills.boundary import Moment, watch

moment = Moment(int(sys.argv[1]), sys.argv[2])
watch(Path("folder"), moment, lambda kind, path, size: print(kind, path, size, flush=True))
with open("folder/a", "wb") as file:  # 1: open
    file.write(b"12345678")  # 2: write, when it is flushed
Path("elsewhere").write_text("not counted")
os.replace("folder/a", "folder/b")  # 3: replace
"""


@pytest.mark.parametrize(
    ("number", "when", "files"),
    [
        (1, "before", {}),
        (1, "after", {"a": b""}),
        (2, "before", {"a": b""}),
        (2, "half", {"a": b"1234"}),
        (3, "before", {"a": b"12345678"}),
        (3, "after", {"b": b"12345678"}),
    ],
)
def test_a_kill_is_where_it_was_asked_for(number, when, files, tmp_path):
    (tmp_path / "folder").mkdir()
    calls = ["open a 0", "write a 8", "replace b 0"][:number]
    done = subprocess.run(
        [sys.executable, "-c", WRITES, str(number), when],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(suite.ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9 and done.stdout.splitlines() == calls
    assert {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()} == files
