"""What the command lines of a run and of a planned pass share: their log, and being interrupted."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cliptrase.errors import start_log


def log_to_stderr() -> None:
    """Plain lines of progress on stderr, in the place of any other log handler."""
    logging.getLogger().handlers.clear()
    start_log("%(message)s", logging.INFO)


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
