"""The console script `cliptrase`: finds the command, which imports what it needs.

Nothing heavy is imported before a command is known, so that `cliptrase --help` is immediate.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NoReturn

import cliptrase
from cliptrase.cli import (
    audit,
    clean,
    compare,
    completion,
    explain,
    listing,
    repeat,
    score,
    segment,
    show,
    verify,
)
from cliptrase.errors import exit_on_user_error, nearest, start_log

OWN = {
    "segment": segment,
    "explain": explain,
    "list": listing,
    "show": show,
    "compare": compare,
    "repeat": repeat,
    "score": score,
    "audit": audit,
    "clean": clean,
    "verify": verify,
}

# Commands that hand their arguments on to the main(arguments) of a module.
HANDED_ON = {
    "prepare": ("data.make.prepare", "make a dataset ready: prepare DATASET"),
    "evaluate": ("evaluate.__main__", "one run or a sweep, as python -m cliptrase.evaluate"),
    "plan": ("plan", "print the runs that a suite needs: plan SUITE"),
    "estimate": ("pipeline.announcement", "what a suite will cost here: estimate SUITE"),
    "tables": ("publish.tables.command", "render a suite's tables from its runs: tables SUITE"),
    "figures": ("publish.figures.command", "draw a suite's figures: figures SUITE"),
    "pictures": (
        "publish.page.predict_pictures",
        "keep the pictures of a suite's page: pictures SUITE",
    ),
    "page": ("publish.page.command", "write a suite's page for a reviewer: page SUITE"),
    "publish": ("publish.tracking", "log a suite's runs and tables to W&B: publish SUITE"),
}


class Parser(argparse.ArgumentParser):
    """argparse whose usage errors are one line too."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exit code 1 for what a UserError tells, 2 for a wrong command line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if any(word.startswith("--conf-dir") for word in words):
        from cliptrase.config import files  # pydantic: not for --help

        words = files.taken_from(words)
    if words and words[0] in HANDED_ON:
        module, _ = HANDED_ON[words[0]]
        import_module(f"cliptrase.{module}").main(words[1:])
        return
    parser = _parser()
    if words and not words[0].startswith("-") and words[0] not in OWN:
        parser.error(f"unknown command {words[0]!r}. {nearest(words[0], [*OWN, *HANDED_ON])}")
    args = parser.parse_args(_with_values(words))
    if args.print_completion:
        print(completion.script(args.print_completion, _parser))
        return
    if "run" not in args:
        parser.error("the following arguments are required: COMMAND")
    start_log("warning: %(message)s")
    args.run(args)


def _with_values(words: Sequence[str]) -> list[str]:
    """The same words; `--patch -1,0` as `--patch=-1,0`, since argparse takes -1,0 for an option."""
    joined = list[str]()
    for word in words:
        if joined and joined[-1] in ("--patch", "--at") and re.match(r"-\d", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _parser(following: Mapping[str, Sequence[str]] | None = None) -> Parser:
    """The parser. following: command that is handed on → the words that may follow it, for shells
    that complete them and the command's options."""
    parser = Parser(
        prog="cliptrase",
        description="Training-free open-vocabulary segmentation with CLIP, and its benchmarks.",
    )
    parser.add_argument("--version", action="version", version=f"cliptrase {cliptrase.__version__}")
    about = "a folder like conf/ with files of your own (also CLIPTRASE_CONF=DIR)"
    parser.add_argument("--conf-dir", metavar="DIR", help=about)
    shells = ", ".join(completion.SHELLS)
    parser.add_argument(
        "--print-completion",
        choices=completion.SHELLS,
        metavar="SHELL",
        help=f"print the script that completes command lines in a shell: {shells}",
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, module in OWN.items():
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    for name, (place, text) in HANDED_ON.items():
        command = commands.add_parser(name, help=text)
        if following is not None:
            if add_options := getattr(import_module(f"cliptrase.{place}"), "add_options", None):
                add_options(command)
            if name in following:
                command.add_argument("word", choices=following[name])
    return parser
