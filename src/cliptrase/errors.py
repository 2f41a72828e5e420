"""Errors a user can cause: one message that names the file or the key, and the cure."""

import difflib
import io
import logging
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import wraps
from typing import Any, TextIO, cast

# characters that turn the direction of writing: they could show a name as another
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class UserError(Exception):
    """A mistake of input, not of code. Its text is the whole message that the user sees."""


class PassError(UserError):
    """An error of what all runs of a pass share: its images, its disk, its device."""


def exit_on_user_error(main: Callable[..., Any]) -> Callable[..., Any]:
    """Let `main` end in `error: …` on stderr and exit code 1 where it raises UserError, and in one
    word and exit code 130 on Ctrl-C.

    Where nobody reads what it prints any more (`… | head -1`), its work goes on, quietly. Where
    that cannot be written (a full disk), its work goes on too, and then it ends in an error.
    """

    @wraps(main)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if isinstance(sys.stdout, _Stream):  # `main` of another `main`
            return main(*args, **kwargs)
        # Pillow's own words, which name no file: `images` says what matters of them
        warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
        logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
        out, err = _Stream(sys.stdout), _Stream(sys.stderr)
        with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
            try:
                return main(*args, **kwargs)
            except UserError as error:
                print(f"error: {printable(str(error))}", file=sys.stderr)
                raise SystemExit(1) from None
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                raise SystemExit(130) from None
            finally:
                out.flush()
                ending = sys.exception()
                if out.fault and not isinstance(ending, Exception):
                    cure = "free some space, or send it to another place"
                    print(f"error: standard output: {out.fault}; {cure}", file=sys.stderr)
                    raise SystemExit(getattr(ending, "code", None) or 1) from None

    return guarded


def counted(number: int, thing: str) -> str:
    """`1 run`, `2 runs`, `3 passes`."""
    several = "" if number == 1 else "es" if thing.endswith("s") else "s"
    return f"{number} {thing}{several}"


def is_read() -> bool:
    """Whether what is printed still reaches someone."""
    return not (isinstance(sys.stdout, _Stream) and sys.stdout.lost)


class _Stream:
    """stdout or stderr that raises nothing: what it cannot encode it escapes, and once a write has
    failed it says nothing more. fault: why, unless nobody reads it. None is a closed stream."""

    def __init__(self, stream: TextIO | None):
        self.stream: TextIO = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self.lost, self.fault = stream is None, ""
        if isinstance(self.stream, io.TextIOWrapper):
            self.stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._noting_faults():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._noting_faults():
            self.stream.flush()

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.lost = True
            if not isinstance(error, BrokenPipeError):
                self.fault = f"cannot be written ({error.strerror})"
            with suppress(OSError):  # what is still in its buffer goes nowhere
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def printable(text: str) -> str:
    """The text for a terminal: what would steer it, or cannot be written, is shown as `\\x1b`."""
    return "".join(
        char.encode("unicode_escape").decode()
        if char in TURNING or (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t")
        else char
        for char in text
    )


def on_one_line(text: str) -> str:
    """Text from a YAML or a list of names without line breaks and control characters."""
    return printable(re.sub(r"[\t\n\r]+", " ", text))


class PrintableFormatter(logging.Formatter):
    """Log lines for a terminal: names in them cannot steer it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, printable."""
        return printable(super().format(record))


def start_log(text: str, level: int = logging.WARNING) -> None:
    """Show log lines of a level or above on stderr, printable, unless there is a log already.

    text: of a line, as `warning: %(message)s`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter(text))
    logging.basicConfig(level=level, handlers=[handler])


def nearest(word: str, choices: Iterable[str]) -> str:
    """What exists, the nearest match first: for the end of an "unknown …" message."""
    names = sorted(str(choice) for choice in choices)
    match = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    hint = f"did you mean {match[0]!r}? " if match else ""
    return f"{hint}There is: {', '.join(names)}"
