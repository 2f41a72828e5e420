"""A short draw of the campaign of kills (benchmarks/kills): the same code, a few boundaries."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from benchmarks.kills import report, suite
from benchmarks.kills.draws import Draw

# Goes on from some states of each of these scenes, kills them a few times by a fixed seed, and says
# what a real kill and the copy of the same moment leave; in a process that loads no torch.
SCRIPT = """
import json, os, random, re, sys
from dataclasses import asdict
from pathlib import Path
from benchmarks.kills import __main__ as kills, scenes, states, suite
from benchmarks.kills.draws import Bench

place = Path(sys.argv[1])
scenes.warm(scenes.DATA_MODULES)
suite.write(place)

def content(tree):
    # temporary names have a random number, or that of the process
    return {re.sub(r"[.]([0-9a-f]{8}|[0-9]+)(?=/|$)", "", name): (entry.mode, entry.content)
            for name, entry in tree.items()}

rng = random.Random(7)
with suite.served(place) as mirror:
    for name in ("download", "preparation"):
        bench = Bench(scenes.SCENES[name], place, mirror)
        for state in rng.sample(bench.states(), 3):
            print(json.dumps(asdict(bench.draw_state(state))))
        for moments in kills.plan(bench.moments(), 2, bench.whole.seconds, rng):
            print(json.dumps(asdict(bench.draw(moments))))
    # without a network, whose answers come in other parts each time
    bench = Bench(scenes.Scene("prepared", 0, scenes.prepared, scenes.fetched), place, mirror)
    copies = bench.states()
    assert [moment for state in copies for moment in state.moments] == bench.moments()
    for state in rng.sample(copies, 4):
        bench.reset()
        bench.run(bench.scene.act, state.moments[-1])
        left = content(states.copied(bench.folder, bench.store))
        print(json.dumps([len(left), left == content(state.tree)]))
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
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    draws = [Draw(**line) for line in lines if isinstance(line, dict)]
    assert Counter(draw.scene for draw in draws) == {"download": 5, "preparation": 5}
    assert report.kills(draws) >= 4, "in two draws a second kill that may come too late"
    assert [draw for draw in draws if draw.hand or draw.differing or draw.left] == []
    compared = [line for line in lines if isinstance(line, list)]
    assert len(compared) == 4 and max(files for files, _ in compared) > 5
    assert all(equal for _, equal in compared), "what a kill leaves is what was copied"


WRITES = """
import os, sys
from pathlib import Path
from benchmarks.kills.boundary import watch

def reached(moment, call):
    if moment.when == "before":
        print(call.kind, call.path, call.size, flush=True)
    if (str(moment.number), moment.when) == (sys.argv[1], sys.argv[2]):
        os.kill(os.getpid(), 9)

watch(Path("folder"), reached)
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
