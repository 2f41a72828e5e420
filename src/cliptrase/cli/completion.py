"""`cliptrase --print-completion SHELL`: the script that completes its command lines there."""

import argparse
from collections.abc import Callable, Mapping, Sequence

SHELLS = ("bash", "zsh")
SUITES = (  # commands that take a suite
    "plan", "estimate", "tables", "figures", "pictures", "page", "publish",
)  # fmt: skip
NAMES = "ls results/runs 2>/dev/null"
RUN = {  # what completes the name of a run, as shtab reads it
    "bash": "_cliptrase_runs",
    "zsh": f"($({NAMES}))",
    "preamble": {"bash": f'_cliptrase_runs() {{ compgen -W "$({NAMES})" -- "$1"; }}'},
}


def add_run(parser: argparse.ArgumentParser, name: str, metavar: str, text: str) -> None:
    """Add an argument that means a run."""
    vars(parser.add_argument(name, metavar=metavar, help=text))["complete"] = RUN


def script(
    shell: str, parser_of: Callable[[Mapping[str, Sequence[str]]], argparse.ArgumentParser]
) -> str:
    """The script for one of SHELLS. parser_of: makes the parser of the console script, given the
    words that may follow those commands which read their arguments themselves."""
    import shtab

    from cliptrase import config
    from cliptrase.data.fetch.sources import read_sources
    from cliptrase.data.make.recipes import DRAWN

    datasets = {"prepare": [*DRAWN, *read_sources().datasets]}
    return str(
        shtab.complete(parser_of(dict.fromkeys(SUITES, config.names("suite")) | datasets), shell)
    )
