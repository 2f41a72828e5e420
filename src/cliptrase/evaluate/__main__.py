"""One run or a sweep: python -m cliptrase.evaluate benchmark=voc20 method=cliptrase image_size=336.

A sweep (-m) is written in Hydra's grammar, and its points share passes; it ends in a table. --json
prints the scores as JSON, and nothing else on stdout. With one of Hydra's launchers each pass of a
sweep is a job of it. Options of Hydra and other sweepers go through Hydra itself, which makes one
point after the other.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException

from cliptrase import config
from cliptrase.config.metric_names import LOST, METRICS
from cliptrase.errors import UserError, counted, exit_on_user_error, printable
from cliptrase.evaluate import launched, sweep, sweep_table
from cliptrase.evaluate.console import interruptible, log_to_stderr
from cliptrase.runs import store


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that are not Hydra's."""
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--json", action="store_true")


PARSER = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
PARSER.add_argument("overrides", nargs="*")
add_options(PARSER)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. In a sweep a run that fails is reported, and the others go on."""
    words = config.files.taken_from(sys.argv[1:] if arguments is None else arguments)
    options, others = PARSER.parse_known_intermixed_args(words)
    with interruptible():
        hydras = [word for word in options.overrides if launched.is_hydras(word)]
        if hydras and options.multirun and not others and launched.launcher(hydras):
            overrides = [word for word in options.overrides if word not in hydras]
            evaluate(overrides, True, options.json, hydras)
        elif others or hydras:
            if options.json:
                raise UserError("--json: not with options of Hydra; leave those out")
            through_hydra(words)
        else:
            evaluate(options.overrides, options.multirun, options.json)


def evaluate(
    overrides: Sequence[str], multirun: bool, as_json: bool = False, hydras: Sequence[str] = ()
) -> None:
    """Make one run, or all of a sweep, and print their scores; of a sweep a table too, which is
    also written beside the runs. as_json: the same as JSON alone, with the errors of points in it.
    hydras: Hydra's overrides that choose a launcher, if any. Raises UserError."""
    points = sweep.listed(overrides, multirun)
    log_to_stderr()
    outcomes = []
    made = launched.make(points, hydras) if hydras else sweep.make(points)
    for point, (outcome, was_there) in zip(points, made, strict=True):
        outcomes.append(outcome)
        if isinstance(outcome, UserError):
            if multirun:
                print(printable(f"error: {' '.join(point)}: {outcome}"), file=sys.stderr)
        elif not as_json:
            print(printable(summary(outcome, was_there)), flush=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, UserError)]
    lines = sweep_table.lines_of(points, outcomes) if multirun or as_json else []
    if multirun and len(errors) < len(points):
        paths = sweep_table.write(points, lines)
        if not as_json:
            written = [f"wrote {path}" for path in paths]
            print(printable("\n".join([sweep_table.as_text(lines), *written])))
    if as_json:
        print(json.dumps(lines if multirun else lines[0], indent=1))
    if errors:
        left = f"runs that failed, see above: {len(errors)}; the others stand"
        raise UserError(left) if multirun else errors[0]


def through_hydra(words: list[str]) -> None:
    """The same by Hydra: its options (--cfg job, --help), its own keys (hydra/sweeper=…)."""

    def job(_: Any) -> None:
        point = list(HydraConfig.get().overrides.task)
        try:
            evaluate(point, multirun=False)
        except UserError as error:
            raise CompactHydraException(f"error: {' '.join(point)}: {error}") from error

    conf = str(config.files.CONF)
    start = hydra.main(version_base="1.3", config_path=conf, config_name="evaluate")
    before = sys.argv
    with tempfile.TemporaryDirectory() as folder:  # for Hydra's own record of a sweep
        words = [f"hydra.sweep.dir={folder}", *_as_hydra_reads(words)]
        sys.argv = [before[0], *sorted(words, key=lambda word: "=" in word)]
        try:
            start(job)()
        finally:
            sys.argv = before


def _as_hydra_reads(words: list[str]) -> list[str]:
    """The command line for Hydra: overrides as `sweep.as_hydra_reads`, but for another sweeper."""
    multirun = not {"-m", "--multirun"}.isdisjoint(words)
    sweepers = {word for word in words if word.startswith("hydra/sweeper=")}
    if multirun and sweepers - {"hydra/sweeper=basic"}:
        return words
    return [
        sweep.as_hydra_reads(word, multirun)
        if ("=" in word or word.startswith("~")) and not word.startswith(("-", "hydra.", "hydra/"))
        else word
        for word in words
    ]


def summary(folder: Path, was_there: bool = False) -> str:
    """The folder, and whether it was there before; its scores in per cent with their 95 %
    intervals, as a short table."""
    found = store.read_metrics(folder)
    facts = [counted(found["images"], "image"), f"rule {found['rule']}"]
    facts += ["was there already"] * was_there
    lines = [f"{folder}  ({', '.join(facts)})"]
    for metric in (*METRICS, *({LOST} & found.keys())):
        low, high = found["ci"][metric]
        span = f"  [{_percent(low)}, {_percent(high)}]"
        lines.append(f"  {metric:<6}{_percent(found[metric]):>7}{span}")
    if absent := found.get("without_pixels"):
        names = ", ".join(absent[:10]) + ", …" * (len(absent) > 10)
        lines.append(
            f"  no mask has a pixel of {len(absent)} of {found['classes']} classes: {names}"
        )
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
