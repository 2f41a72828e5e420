"""Kill work at random moments, go on from what a kill leaves at every boundary, and compare every
byte that is kept: `python -m benchmarks.kills --kills 1000`.

Then it damages a file of every kind that is kept. Goes on where it was broken off. Every kill is a
line of results/kills/kills.jsonl, every damage one of damage.jsonl; kills.json and kills.md beside
them sum them up.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.kills import damage, report, scenes, suite
from benchmarks.kills.boundary import Moment
from benchmarks.kills.damage import Outcome
from benchmarks.kills.draws import Bench, Draw, named, state_name
from benchmarks.kills.starts import ENOUGH, SIGNALS, WORKS, Starts, Work

log = logging.getLogger("benchmarks")

SEED = 2026
STARTS = 0.08  # of the kills are of Snakemake itself, the others of one process each


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, metavar="N", help="at least (1000)")
    parser.add_argument("--out", type=Path, default=Path("results/kills"), help="results/kills")
    parser.add_argument("--only", choices=[*scenes.SCENES, *WORKS, "damage"])
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    os.environ["OMP_NUM_THREADS"] = "1"
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    ledger, damages = out / "kills.jsonl", out / "damage.jsonl"
    before = report.read(ledger, Draw)
    log.info("%d kills are there", report.kills(before))
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        place = Path(folder).resolve()
        suite.write(place)
        os.environ.update(suite.environment(place))
        with suite.served(place) as mirror:
            if options.only != "damage":
                for draw in _draws(options, place, mirror, before):
                    _keep(ledger, draw)
                    if draw.hand or draw.differing or draw.left:
                        log.warning("%s, %s: %s", draw.scene, draw.moment, draw.hand or "differs")
            if options.only in (None, "damage"):
                for outcome in _damaged(options.seed, place, mirror, damages):
                    _keep(damages, outcome)
                    if outcome.how == "wrong":
                        log.warning("%s, %s: %s", outcome.kind, outcome.damage, outcome.said)
    report.write(out, report.read(ledger, Draw), report.read(damages, Outcome))
    log.info("%s", out / "kills.md")


def _keep(ledger: Path, line: Draw | Outcome) -> None:
    with open(ledger, "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(line)) + "\n")


def _damaged(seed: int, place: Path, mirror: str, damages: Path) -> Iterator[Outcome]:
    """What comes of damages, for the kinds of files that were not tried yet."""
    scenes.warm()
    done = {outcome.kind for outcome in report.read(damages, Outcome)}
    for kind in damage.KINDS:
        if kind.name not in done:
            log.info("damaged: %s", kind.name)
            yield from list(damage.outcomes(kind, place, mirror, seed))
    if not done & damage.BEFORE_A_START.keys():
        log.info("damaged: files that a whole start reads")
        yield from list(damage.before_a_start(Starts(place, mirror), seed))


def _draws(
    options: argparse.Namespace, place: Path, mirror: str, before: list[Draw]
) -> Iterator[Draw]:
    """The draws that are still to be made."""
    names = [options.only] if options.only else [*scenes.SCENES, "starts"]
    for name in names:
        if name in WORKS:
            share = 1.0 if options.only else STARTS
            kills = round(options.kills * share)
            yield from _starts(WORKS[name], kills, options.seed, place, mirror, before)
        else:
            share = 1.0 if options.only else scenes.SCENES[name].share * (1 - STARTS)
            yield from _boundaries(
                name, round(options.kills * share), options.seed, place, mirror, before
            )


def _boundaries(
    name: str, kills: int, seed: int, place: Path, mirror: str, before: list[Draw]
) -> Iterator[Draw]:
    """Go on from what a kill leaves at each boundary of a scene; then kill it: at boundaries, at
    random moments, and twice."""
    scenes.warm()
    rng = random.Random(f"{seed} {name}")
    bench = Bench(scenes.SCENES[name], place, mirror)
    everywhere, states = bench.moments(), bench.states()
    log.info("%s: %d boundaries, %d states, %d kills", name, len(everywhere), len(states), kills)
    done = {draw.moment for draw in before if draw.scene == name}
    for state in states:
        if state_name(state) not in done:
            yield bench.draw_state(state)
    for moments in plan(everywhere, kills, bench.whole.seconds, rng):
        if ", then ".join(map(named, moments)) not in done:
            yield bench.draw(moments)


def plan(
    everywhere: list[Moment], kills: int, seconds: float, rng: random.Random
) -> list[list[Moment | float]]:
    """Which kills are made: of ten, eight at a boundary, each once, one at any time, and one twice
    in a row. Where there are fewer boundaries than that, the more of the others."""
    once = rng.sample(everywhere, min(len(everywhere), kills * 8 // 10))
    once.sort(key=lambda moment: (moment.number, moment.when))
    rest = kills - len(once)
    at_times = [[rng.uniform(0, seconds)] for _ in range(rest // 3)]
    twice = [[rng.choice(everywhere), rng.choice(everywhere)] for _ in range((rest + 2) // 3)]
    return [*([each] for each in once), *at_times, *twice]


def _starts(
    works: Sequence[Work], kills: int, seed: int, place: Path, mirror: str, before: list[Draw]
) -> Iterator[Draw]:
    """Kill Snakemake, until so many kills are made."""
    names = {work.name for work in works}
    made = sum(1 for draw in before if draw.scene in names and draw.moment)
    starts, hows = Starts(place, mirror), list(SIGNALS)
    while made < kills:
        turn = made // ENOUGH  # as many turns as ways times works: each way with each work
        how, work = hows[turn % 3], works[(turn + turn // 3) % len(works)]
        log.info("%s, %s: %d of %d kills of Snakemake", work.name, how, made, kills)
        for draw in starts.kills(work, how, random.Random(f"{seed} {made}")):
            made += bool(draw.moment)
            yield draw


if __name__ == "__main__":
    main()
