"""Figure 8: how fast SAN learns, by what its queries begin as; from the runs of an experiment.

    python -m cliptrase.san.figure EXPERIMENT

Intervals are of 1,000 draws, the same in all arms: of the seeds, then of the pictures that score.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cliptrase.errors import UserError, counted, exit_on_user_error
from cliptrase.files import read_json, write_text
from cliptrase.publish import CONVERGENCE
from cliptrase.publish.figures.style import (
    GREY,
    INK,
    PALE,
    PLAIN,
    ROWS,
    SETTINGS,
    headed_with_legend,
    save,
)
from cliptrase.runs import bootstrap
from cliptrase.runs.metrics import scores
from cliptrase.san import command, settings
from cliptrase.san.regions import read_means
from cliptrase.san.settings import San

RULE = "mmseg"
SHARE = 0.95  # of plain's final mIoU, which is to be reached
COLOURS = {"plain": GREY, "cliptrase": ROWS["CLIPtrase"], "shuffled": PLAIN}
NAMES = {"plain": "at random", "cliptrase": "CLIPtrase's regions", "shuffled": "random regions"}
SEED_DRAWS = 8  # of the stream that draws seeds, beside the one that draws pictures

Values = NDArray[np.float64]


class Curve(NamedTuple):
    """mIoU in per cent of an arm, mean over seeds: at each checkpoint (C,), and of each draw (1000,
    C)."""

    points: Values
    draws: Values


class Speed(NamedTuple):
    """Iterations until a share of plain's final mIoU is reached, inf where it is not, and how many
    times sooner than plain: each with the 2.5 % and 97.5 % quantiles of the draws."""

    reached: tuple[float, float, float]
    ratio: tuple[float, float, float]


def seed_weights(seeds: int) -> Values:
    """How often each seed stands in each draw: (1000, S), rows add up to S."""
    bits = np.random.PCG64([bootstrap.SEED, SEED_DRAWS])
    raw = bits.random_raw(bootstrap.RESAMPLES * seeds).reshape(bootstrap.RESAMPLES, seeds)
    drawn = ((raw >> np.uint64(32)) * np.uint64(seeds)) >> np.uint64(32)
    return np.stack([(drawn == seed).sum(axis=1) for seed in range(seeds)], axis=1).astype(float)


def curve_of(runs: Sequence[Mapping[str, NDArray[np.int32]]]) -> Curve:
    """Of the runs of an arm, one a seed: `tp`, `gt`, `pred` (C, pictures, K) of each."""
    points = np.stack(
        [
            scores(RULE, *(run[name].sum(axis=1) for name in ("tp", "gt", "pred")))["mIoU"]
            for run in runs
        ]
    )
    draws = np.stack(
        [
            np.stack(
                [
                    bootstrap.resampled(RULE, *counts)["mIoU"]
                    for counts in zip(run["tp"], run["gt"], run["pred"], strict=True)
                ]
            )
            for run in runs
        ]
    )  # (S, C, 1000)
    weighted = np.einsum("ds,scd->dc", seed_weights(len(runs)), draws) / len(runs)
    return Curve(points.mean(axis=0), weighted)


def iterations_to(threshold: float, curve: Values, iterations: NDArray[np.integer]) -> float:
    """Where a curve (C,) first is at a threshold, linear between checkpoints; inf if nowhere."""
    above = np.flatnonzero(curve >= threshold)
    if not above.size:
        return math.inf
    last = int(above[0])
    if not last:
        return float(iterations[0])
    low, high = curve[last - 1], curve[last]
    share = (threshold - low) / (high - low)
    return float(iterations[last - 1] + share * (iterations[last] - iterations[last - 1]))


def speeds(curves: Mapping[str, Curve], iterations: NDArray[np.integer]) -> dict[str, Speed]:
    """Of every arm. In each draw what is to be reached is a share of plain's own final mIoU."""

    def reached(arm: str) -> Values:
        both = zip(
            [curves["plain"].points, *curves["plain"].draws],
            [curves[arm].points, *curves[arm].draws],
            strict=True,
        )
        return np.array([iterations_to(SHARE * plain[-1], own, iterations) for plain, own in both])

    at = {arm: reached(arm) for arm in curves}

    def with_quantiles(values: Values) -> tuple[float, float, float]:
        low, high = np.quantile(values[1:], [bootstrap.LOW, bootstrap.HIGH], method="nearest")
        return float(values[0]), float(low), float(high)

    return {
        arm: Speed(with_quantiles(own), with_quantiles(at["plain"] / np.maximum(own, 1)))
        for arm, own in at.items()
    }


def frame_of(curves: Mapping[str, Curve], iterations: NDArray[np.integer]) -> pd.DataFrame:
    """A line for each arm and checkpoint: mIoU, and CLIPtrase's lead over the other arms, each with
    its 95 % interval."""

    def lines() -> Iterator[dict[str, object]]:
        for arm, curve in curves.items():
            for place, iteration in enumerate(iterations):
                point, draws = float(curve.points[place]), curve.draws[:, place]
                low, high = bootstrap.interval(point, draws)
                line = {"arm": arm, "iteration": int(iteration), "mIoU": point}
                line |= {"low": low, "high": high}
                if arm != "cliptrase" and "cliptrase" in curves:
                    ours = curves["cliptrase"]
                    lead = bootstrap.difference(
                        float(ours.points[place]), ours.draws[:, place], point, draws
                    )
                    line |= dict(zip(("lead", "lead_low", "lead_high"), lead, strict=True))
                yield line

    return pd.DataFrame(lines())


def chart(frame: pd.DataFrame, title: str, about: str) -> Figure:
    """Left: mIoU by iteration, a band for each arm. Right: CLIPtrase's lead over the other arms."""
    figure = Figure((8.6, 3.3), layout="constrained")
    curves, leads = figure.subplots(1, 2)
    for arm, lines in frame.groupby("arm", sort=False):
        style: Any = {"color": COLOURS[arm], "linewidth": 1.8}
        curves.plot(lines["iteration"], lines["mIoU"], **style)
        band: Any = {"color": COLOURS[arm], "alpha": 0.18, "linewidth": 0}
        curves.fill_between(lines["iteration"], lines["low"], lines["high"], **band)
        if arm != "cliptrase":
            leads.plot(lines["iteration"], lines["lead"], **style)
            leads.fill_between(lines["iteration"], lines["lead_low"], lines["lead_high"], **band)
    plain = frame.loc[frame["arm"] == "plain", "mIoU"].iloc[-1]
    curves.axhline(SHARE * plain, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    leads.axhline(0, color=INK, linewidth=0.9)
    curves.set(ylabel="mIoU (%)", ylim=(0, None))
    leads.set(ylabel="points of mIoU")
    curves.set_title("learning", fontsize=9.5)
    leads.set_title("lead of CLIPtrase's regions over the others", fontsize=9.5)
    for axes in (curves, leads):
        _plainly(axes, int(frame["iteration"].max()))
    arms = list(dict.fromkeys(frame["arm"]))
    handles = [Line2D([], [], color=COLOURS[arm], linewidth=1.8) for arm in arms]
    headed_with_legend(figure, title, about, handles, [NAMES[arm] for arm in arms])
    return figure


def _plainly(axes: Axes, last: int) -> None:
    axes.set(xlabel="iterations", xlim=(0, last), axisbelow=True)
    axes.grid(color=PALE, linewidth=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)


def read_runs(san: San) -> dict[str, list[dict[str, NDArray[np.int32]]]]:
    """arm → its runs, one a seed. Raises UserError for one that is missing, is not what the
    experiment says, or is of other code than the first."""
    runs: dict[str, list[dict[str, NDArray[np.int32]]]] = {}
    codes = set[object]()
    for arm in san.arms:
        for seed in san.seeds:
            file, cure = san.run_file(arm, seed), f"python -m cliptrase.san.train {san.name}"
            if not file.is_file():
                raise UserError(f"{file}: no such run; make it with `{cure} {arm} {seed}`")
            about = read_json(file.with_suffix(".json")) or {}
            if about.get("recipe") != json.loads(san.recipe()):
                raise UserError(
                    f"{file}: a run of other settings than conf/san/{san.name}.yaml says; make it "
                    f"again with `{cure} {arm} {seed}`"
                )
            codes.add(about.get("code"))
            if len(codes) > 1:
                raise UserError(
                    f"{file}: a run of other code than those before it; make all of them again, "
                    f"this one with `{cure} {arm} {seed}`"
                )
            with np.load(file) as arrays:
                runs.setdefault(arm, []).append(dict(arrays))
    return runs


def in_words(
    san: San, frame: pd.DataFrame, speed: Mapping[str, Speed], seconds: float | None
) -> list[str]:
    """What came out, a line each. seconds: of a CPU, that the regions took, where there are any;
    they are not compared with steps of a GPU."""
    said = []
    last = frame[frame["iteration"] == frame["iteration"].max()].set_index("arm")
    for arm, line in last.iterrows():
        text = f"{arm}: {line['mIoU']:.1f} [{line['low']:.1f}, {line['high']:.1f}] at the end"
        point, low, high = speed[str(arm)].reached
        text += f"; {100 * SHARE:.0f} % of plain's after {_count(point)} "
        text += f"[{_count(low)}, {_count(high)}]"
        if arm != "plain":
            point, low, high = speed[str(arm)].ratio
            text += f" iterations, {_times(point)} [{_times(low)}, {_times(high)}] times as fast"
        else:
            text += " iterations"
        if "lead" in line and not math.isnan(line["lead"]):
            text += f"; cliptrase leads by {line['lead']:+.1f} "
            text += f"[{line['lead_low']:+.1f}, {line['lead_high']:+.1f}]"
        said.append(text)
    step = _seconds_of_a_step(san)
    if seconds is not None and step and not san.gpus:
        said.append(
            f"the regions took {seconds:.0f} CPU seconds, as {seconds / step:.0f} iterations do "
            f"({step:.2f} each)"
        )
    return said


def _times(sooner: float) -> str:
    """Nothing of an arm that plain's share is not reached in: it needs longer than plain."""
    return f"{sooner:.2f}" if sooner else "< 1"


def _count(iterations: float) -> str:
    return "> last" if math.isinf(iterations) else f"{iterations:.0f}"


def _seconds_of_a_step(san: San) -> float | None:
    files = (san.run_file(arm, seed).with_suffix(".json") for arm in san.arms for seed in san.seeds)
    known = [float(each["cpu_seconds"]) for file in files if (each := read_json(file))]
    return sum(known) / len(known) / san.iterations if known else None


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figure of an experiment, and say what came out."""
    args = command.parser(__doc__).parse_args(arguments)
    san = settings.load(args.experiment)
    runs = read_runs(san)
    iterations = np.array(san.checkpoints)
    curves = {arm: curve_of(of_arm) for arm, of_arm in runs.items()}
    frame, speed = frame_of(curves, iterations), speeds(curves, iterations)
    title = f"Figure 8. SAN on {san.model}, by what its queries begin as"
    about = " · ".join(
        [
            f"{counted(san.validation, 'held-out picture')}, "
            f"{counted(san.run.vocabulary.classes.count, 'class')}",
            f"mean of {counted(len(san.seeds), 'seed')}",
            "bands: 95 %, over seeds and pictures",
            f"dashed: {100 * SHARE:.0f} % of where {NAMES['plain']} ends",
        ]
    )
    numbers = {f"{arm}_draws": curve.draws for arm, curve in curves.items()}
    numbers |= {f"{arm}_mIoU": curve.points for arm, curve in curves.items()}
    with matplotlib.rc_context(SETTINGS):
        paths = save(
            chart(frame, title, about),
            san.folder,
            CONVERGENCE,
            numbers | {"iterations": iterations},
        )
    seconds = None
    with suppress(UserError):  # there are none, or of other settings or code
        seconds = read_means(san, args.data).cpu_seconds
    words = in_words(san, frame, speed, seconds)
    for suffix, text in (("csv", frame.to_csv(index=False)), ("txt", "\n".join([*words, ""]))):
        write_text(path := san.folder / f"{CONVERGENCE}.{suffix}", text)
        paths.append(path)
    sys.stdout.write("".join(f"{line}\n" for line in [*words, *map(str, paths)]))


if __name__ == "__main__":
    main()
