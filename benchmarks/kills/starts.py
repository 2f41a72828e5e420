"""Kills of Snakemake itself, at random moments: each start goes on where the killed one was, until
one reaches its end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.kills import kept, suite
from benchmarks.kills.draws import Draw

ENOUGH = 4  # kills in a row after which a start may reach its end
# What is ended, and how: all processes of the start; Snakemake alone, whose jobs go on; a lost
# connection, which all processes are told.
SIGNALS = {
    "the group": (True, signal.SIGKILL),
    "Snakemake alone": (False, signal.SIGKILL),
    "the group, by SIGHUP": (True, signal.SIGHUP),
}


@dataclass(frozen=True)
class Work:
    """A suite, how many shards a pass of it is cut into, and the benchmarks that are asked for;
    seconds until a kill, at most."""

    suite: str
    shards: int = 1
    benchmarks: str = ""
    longest: float = 45.0

    @property
    def name(self) -> str:
        """In words."""
        part = f", {self.benchmarks}" * bool(self.benchmarks)
        return f"suite {self.suite}{part}" + f", {self.shards} shards a pass" * (self.shards > 1)


WORKS = {
    "starts": (Work("smoke"), Work(suite.NAME), Work(suite.NAME, 2)),
    "demo": (Work("shapes", benchmarks="shapes_clean", longest=200.0),),
    "miniature": (Work("miniature", benchmarks="voc20", longest=60.0),),
}
LONG_WORKS = {work.suite: work for work in (Work("shapes", 1, 300.0), Work("miniature", 1, 200.0))}


class Starts:
    """Starts of Snakemake in a folder below `place`."""

    def __init__(self, place: Path, mirror: str, cores: int = 2) -> None:
        self.place, self.folder, self.log = place, place / "work", place / "log"
        self.mirror, self.cores = mirror, cores
        self.whole: dict[str, dict[str, str]] = {}  # suite → what undisturbed work makes

    def undisturbed(self, work: Work) -> dict[str, str]:
        """What a start makes that nobody kills."""
        if work.suite not in self.whole:
            self._new()
            code, said = self.run(replace(work, shards=1))
            if code:
                raise RuntimeError(said[-3000:])
            self.whole[work.suite] = kept.contents(self.folder)
        return self.whole[work.suite]

    def run(self, work: Work) -> tuple[int, str]:
        """A start that nobody kills, in the folder as it is: its exit code, and what it said."""
        with self._start(work) as process:
            code = process.wait()
        return code, self.log.read_text(errors="replace")

    def kills(self, work: Work, how: str, rng: random.Random) -> Iterator[Draw]:
        """Kill start after start; a draw for each kill. What the last start made is compared, which
        the last draw says."""
        whole, (group, number) = self.undisturbed(work), SIGNALS[how]
        self._new()
        groups, before, kills = list[int](), dict[str, int](), 0
        while True:
            begun, delay = time.monotonic(), rng.uniform(0.5, work.longest)
            with self._start(work) as process:
                groups.append(process.pid)
                try:
                    code = process.wait(None if kills >= ENOUGH else delay)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, number) if group else os.kill(process.pid, number)
                    code = 0 if process.wait() == 0 else None  # 0: it was at its end already
            seconds, runs = round(time.monotonic() - begun, 2), self._runs()
            again = sorted(run for run in before if runs.get(run) != before[run])
            before, ended = runs, code is not None
            differs = kept.differing(kept.contents(self.folder), whole) if ended else []
            hand = self.log.read_text(errors="replace")[-600:] if code else ""
            kills += not ended
            yield Draw(
                scene=work.name,
                moment="" if ended else how,
                call="" if ended else f"after {delay:.1f} s",
                path=", ".join(again),  # finished runs that were made again
                hand=hand,
                differing=differs,
                left=kept.left_behind(self.folder) if ended else [],
                images=0,
                written=0,
                seconds=seconds,
            )
            if ended:
                break
        for each in groups:
            _end(each)

    def _start(self, work: Work) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "snakemake", "--snakefile", str(suite.ROOT / "Snakefile")]
        words += ["--profile", str(suite.ROOT / "profiles/default"), "--cores", str(self.cores)]
        words += ["all", "--config", f"suite={work.suite}", f"mirror={self.mirror}"]
        words += [f"shards={work.shards}"] if work.shards > 1 else []
        words += [f"benchmarks=[{work.benchmarks}]"] if work.benchmarks else []
        with open(self.log, "wb") as log:
            return subprocess.Popen(
                words,
                cwd=self.folder,
                env=suite.environment(self.place),
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_heed_hangups,
            )

    def _new(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        suite.new(self.folder, self.place)

    def _runs(self) -> dict[str, int]:
        """Finished run → the number of its folder on the disk, another one when it is made anew."""
        files = self.folder.glob("results/runs/[!.]*/provenance.json")
        return {file.parent.name: file.parent.stat().st_ino for file in files}


def _heed_hangups() -> None:
    """Under nohup a process ignores SIGHUP, and so would those that it starts."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _end(group: int) -> None:
    """End what is left of a process group that this campaign started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
