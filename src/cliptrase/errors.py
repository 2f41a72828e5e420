"""Errors a user can cause: one message that names the file or the key, and the cure."""

import difflib
import logging
import sys
import unicodedata
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any


class UserError(Exception):
    """A mistake of input, not of code. Its text is the whole message that the user sees."""


class PassError(UserError):
    """An error of what all runs of a pass share: its images, its disk, its device."""


def exit_on_user_error(main: Callable[..., Any]) -> Callable[..., Any]:
    """Let `main` end in `error: …` on stderr and exit code 1 where it raises UserError, and in one
    word and exit code 130 on Ctrl-C."""

    @wraps(main)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return guarded


# what turns the writing around: a name could be shown as another
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str) -> str:
    """The text for a terminal: what would steer it, or cannot be written, is shown as `\\x1b`."""
    return "".join(
        char.encode("unicode_escape").decode()
        if char in TURNING or (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t")
        else char
        for char in text
    )


class PrintableFormatter(logging.Formatter):
    """Log lines for a terminal: names in them cannot steer it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, printable."""
        return printable(super().format(record))


def nearest(word: str, choices: Iterable[str]) -> str:
    """What exists, the nearest match first: for the end of an "unknown …" message."""
    known = sorted(str(choice) for choice in choices)
    match = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    hint = f"did you mean {match[0]!r}? " if match else ""
    return f"{hint}There is: {', '.join(known)}"
