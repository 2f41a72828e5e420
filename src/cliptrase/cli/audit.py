"""`cliptrase audit PREDICTIONS`: what is wrong with an export of label maps, with its evidence."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from cliptrase.cli import score
from cliptrase.cli.output import tell
from cliptrase.errors import counted

if TYPE_CHECKING:
    from cliptrase.audit import Report

HELP = "what is wrong with label maps: shifted, permuted, turned, interpolated, of other images …"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    score.add_arguments(parser)
    parser.epilog = score.EPILOG.replace("cliptrase score", "cliptrase audit")


def run(args: argparse.Namespace) -> None:
    """Print the findings. Raises UserError where no label map can be read."""
    from cliptrase import config
    from cliptrase.audit import audit  # torch: not for --help

    run = config.resolve(score.overrides(args))
    report = audit(run, run.data)
    tell(asdict(report), _lines(report, run.protocol.rule), as_json=args.json)


def _lines(report: "Report", rule: str) -> Iterator[str]:
    images = counted(report.images, "image")
    yield f"{images}, mIoU as it is {report.score:.2f} (rule {rule})"
    for finding in report.findings:
        yield f"\n{finding.fault}: {finding.evidence}"
        if finding.mended is None:
            yield "  mIoU if mended: needs another export"
        else:
            yield f"  mIoU if mended: {finding.mended:.2f}"
    if not report.findings:
        yield "nothing found"
