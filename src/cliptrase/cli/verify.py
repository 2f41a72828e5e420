"""`cliptrase verify`: which prepared datasets are there, and whether each is what was prepared."""

from __future__ import annotations

import argparse
from pathlib import Path

from cliptrase.errors import UserError

HELP = "decode the prepared datasets and hold them against their self-checks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "datasets", nargs="*", metavar="DATASET", help="default: all that are there"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="data folder (data)")


def run(args: argparse.Namespace) -> None:
    """One line a dataset. Raises UserError, after all were looked at, where one is not complete."""
    from cliptrase.data.prepared import verify_prepared  # numpy and PIL: not for --help

    folder = args.data / "prepared"
    names = args.datasets or sorted(
        path.name for path in folder.glob("*") if path.is_dir() and not path.name.startswith(".")
    )
    if not names:
        raise UserError(f"{folder}: no prepared dataset; make one with `cliptrase prepare shapes`")
    faults = []
    for name in names:
        try:
            check = verify_prepared(name, args.data)
        except UserError as error:
            faults.append(str(error))
        else:
            print(f"{name}: complete, {check['count']} samples")
    if faults:
        raise UserError("; ".join(faults))
