"""What the command lines of a run and of a planned pass share: their log, and being interrupted."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cliptrase.errors import PrintableFormatter


def log_to_stderr() -> None:
    """Plain lines of progress on stderr, in the place of any other log handler."""
    root = logging.getLogger()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter())
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


@contextmanager
def interruptible() -> Iterator[None]:
    """End with one line and exit code 130 on Ctrl-C; put log handlers back in any case."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on where its counts were saved\n")
        raise SystemExit(130) from None
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
