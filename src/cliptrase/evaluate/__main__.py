"""One run or a sweep: python -m cliptrase.evaluate benchmark=voc20 method=cliptrase image_size=336.

Hydra reads the command line and sweeps (-m); what a run is comes from config.resolve.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import CompactHydraException, HydraException

from cliptrase import config
from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.evaluate.console import interruptible, log_to_stderr
from cliptrase.runs import store
from cliptrase.runs.metrics import METRICS

SWEEP_DIR = "hydra.sweep.dir"


def evaluate(overrides: list[str]) -> Path:
    """Make one run, unless it is finished, and return its folder. Raises UserError."""
    run = config.resolve(overrides)
    name, out = config.run_name(run), Path(run["out"])
    if store.rescore({name: run}, out, run["data"]):
        from cliptrase.evaluate.passes import run_pass  # torch: not where the run is there

        run_pass(
            {name: run},
            partial=out / f".{name}.partial.npz",
            out=out,
            data=run["data"],
            device=run["device"],
            batch_size=run["batch_size"],
            workers=run["workers"],
        )
    return out / name


def summary(folder: Path) -> str:
    """The folder and its scores in per cent with their 95 % intervals, as a short table."""
    found = store.read_metrics(folder)
    lines = [f"{folder}  ({found['images']} images, rule {found['rule']})"]
    for metric in METRICS:
        low, high = found["ci"][metric]
        span = f"  [{_percent(low)}, {_percent(high)}]"
        lines.append(f"  {metric:<6}{_percent(found[metric]):>7}{span}")
    return "\n".join(lines) + "\n"


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. In a sweep a run that fails is reported, and the others go on."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = get_args_parser().parse_intermixed_args(words)
    words = [word for word in words if word not in options.overrides] + options.overrides
    keys = check(options.overrides, options.multirun)
    failures, process = [], os.getpid()

    def job(_: Any) -> None:
        log_to_stderr()  # Hydra's handlers write to stdout
        overrides = list(HydraConfig.get().overrides.task)
        try:
            sys.stdout.write(summary(evaluate(overrides)))
        except UserError as error:
            failures.append(f"{' '.join(overrides)}: {error}" if options.multirun else str(error))
            if os.getpid() != process:  # a launcher's: only an exception reaches us
                raise CompactHydraException(f"error: {failures[-1]}") from error
            sys.stderr.write(f"error: {failures[-1]}\n")

    start = hydra.main(
        version_base="1.3", config_path=str(config.files.CONF), config_name="evaluate"
    )
    before = sys.argv
    with tempfile.TemporaryDirectory() as folder, interruptible():
        if options.multirun and SWEEP_DIR not in keys:
            words.append(f"{SWEEP_DIR}={folder}")  # Hydra's own record of a sweep is not kept
        sys.argv = [before[0], *words]
        try:
            start(job)()
        finally:
            sys.argv = before
    if failures and options.multirun:
        raise UserError(f"runs that failed, see above: {len(failures)}; the others stand")
    if failures:
        raise SystemExit(1)


def check(overrides: list[str], multirun: bool) -> set[str]:
    """The keys of `overrides`. Raises UserError for what Hydra could not read or compose.

    Every run of a sweep is composed, so that a wrong name is found before the first image.
    """
    parsed = [_parse(override) for override in overrides]
    swept = [one for one in parsed if one.is_sweep_override()]
    if swept and not multirun:
        raise UserError(f"{swept[0].input_line}: several values; add -m for a sweep")
    own = [one for one in parsed if not one.get_key_element().startswith(("hydra.", "hydra/"))]
    listed = [one for one in own if one.value_type is not ValueType.GLOB_CHOICE_SWEEP]
    if multirun:
        runs = BasicSweeper.split_arguments(listed, max_batch_size=None)[0]
    else:
        runs = [[str(one.input_line) for one in listed]]
    for run in runs:
        config.compose(run)
    return {one.get_key_element() for one in parsed}


def _parse(override: str) -> Override:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        raise UserError(
            f"override {override!r}: write key=value; a value with signs needs quotes "
            "within quotes, as \"benchmark.images='my photos'\""
        ) from None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
