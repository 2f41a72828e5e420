"""The option `--set`, of the commands that resolve a configuration."""

import argparse


def add_overrides(parser: argparse.ArgumentParser, example: str) -> None:
    """`--set KEY=VALUE …`, as `overrides`; it may be given more than once."""
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help=f"keys of the configuration, as {example}",
    )
