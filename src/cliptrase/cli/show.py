"""`cliptrase show RUN`: a run in full."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cliptrase.cli.completion import add_run
from cliptrase.cli.output import tell
from cliptrase.config.metric_names import METRICS
from cliptrase.errors import counted
from cliptrase.files import user_path

HELP = "a run in full: scores under all rules, classes, confusions, cost, origin, command"
RUN = "a run's folder, its name, or a part that no other name has"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_run(parser, "run_word", "RUN", RUN)
    add("--results", type=user_path, default=Path("results"), help="the results folder (results)")
    add("--json", action="store_true", help="everything, as JSON")


def run(args: argparse.Namespace) -> None:
    """Print what the run's folder says. Raises UserError for no such run, or a damaged one."""
    from cliptrase.publish.run_folders import find_run  # NumPy: not for --help
    from cliptrase.publish.run_report import report

    facts = report(find_run(args.results, args.run_word))
    tell(facts, _lines(facts), as_json=args.json)


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    yield f"{facts['run']}: {facts['images']} images, {facts['skipped']} skipped"
    yield f"\n{'per cent':<14}" + "".join(f"{metric:>22}" for metric in METRICS)
    for rule, scores in facts["scores"].items():
        name = f"{rule} *" if rule == facts["rule"] else rule
        yield f"{name:<14}" + "".join(f"{_spanned(scores[metric]):>22}" for metric in METRICS)
    yield "* the rule of this run; [95 % interval, bootstrap over images]"
    classes = sorted(
        facts["classes"], key=lambda each: (each["value"] is None, -(each["value"] or 0))
    )
    wide = max([5, *(len(each["name"]) for each in classes)])
    yield f"\n{'class':<{wide}}    IoU   of the pixels   predicted"
    total = max(1, sum(each["pixels"] for each in classes))
    for each in classes:
        share, predicted = (100 * each[key] / total for key in ("pixels", "predicted"))
        value = "    –" if each["value"] is None else f"{each['value']:5.1f}"
        yield f"{each['name']:<{wide}}  {value}   {share:10.2f} %   {predicted:7.2f} %"
    if facts["confusions"]:
        yield "\nmost confused (true class → predicted):"
        for each in facts["confusions"]:
            pair = f"{each['truth']} → {each['predicted']}"
            yield f"  {pair}: {each['pixels']:,} pixels, {each['share']:.1f} % of the class"
    if facts["errors"]:
        yield from _errors(facts["errors"])
    yield from _origin(facts)


def _errors(errors: Mapping[str, Any]) -> Iterator[str]:
    yield "\nwrong pixels, per cent of the scored (docs/errors.md):"
    for each in errors["categories"]:
        most = f"   most in {each['most']}, {each['of']:,}" if each["pixels"] else ""
        yield f"  {each['name']:<13}{_spanned(each['share']):>22}{each['pixels']:>15,} pixels{most}"
    for name, numbers in errors["means"].items():
        yield f"{name:<15}{_spanned(numbers):>22}"
    yield "true_regions, true_names: mIoU of oracles, which know the ground truth"
    if certainty := errors["certainty"]:
        auroc = "" if certainty["AUROC"] is None else f", AUROC {certainty['AUROC']:.2f}"
        yield f"certainty: ECE {certainty['ECE']:.2f}, AURC {certainty['AURC']:.2f}{auroc}"
        yield "  confidence   right   of the pixels"
        total = sum(pixels for *_, pixels in certainty["reliability"])
        for confidence, right, pixels in certainty["reliability"]:
            yield f"  {confidence:8.1f} %  {right:4.1f} %  {100 * pixels / total:12.1f} %"
        risks = ", ".join(f"{wrong:.1f}" for wrong in certainty["risk"])
        yield f"  per cent wrong of the surest tenth, two tenths, … all: {risks}"


def _origin(facts: dict[str, Any]) -> Iterator[str]:
    from cliptrase.runs.provenance import COMPUTING  # pydantic: not for --help

    cost, made = facts["cost"], facts["made"]
    seconds = ", ".join(f"{stage} {took:.1f}" for stage, took in cost["seconds"].items())
    memory = cost["peak_memory_bytes"]
    runs = counted(cost["runs_in_pass"] or 1, "run")
    yield f"\nseconds of its pass of {runs}: {seconds}"
    yield f"peak memory: {memory / 1e9:.2f} GB" if memory else "peak memory: unknown"
    if cost["flops"]:  # of label maps from files there are none
        yield f"operations of an image: {cost['flops'] / 1e9:.2f} G"
    versions, device = made["versions"] or {}, (made["host"] or {}).get("device")
    computing = ", ".join(f"{name} {versions.get(name)}" for name in ("python", *COMPUTING))
    yield f"made: {made['finished']} on {device}, commit {made['commit']}; {computing}"
    words = facts["config"]["vocabulary"]
    yield "words: " + ", ".join(
        f"{key} {each.get('name', '')} ({each['count']})".replace("  ", " ")
        for key, each in words.items()
        if each
    )
    dataset = facts["config"]["benchmark"]["dataset"]
    own = dataset == "folder"
    yield "pictures: " + ("a folder, see the command" if own else f"dataset {dataset}")
    if facts["command"] is None:
        yield "command: not written down by the version that made it"
    else:
        yield f"command, in {facts['working_folder']}:\n  {facts['command']}"


def _spanned(numbers: list[float | None]) -> str:
    value, low, high = numbers
    if value is None:
        return "–"
    return f"{value:.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")
