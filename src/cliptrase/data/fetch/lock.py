"""Processes that want to make the same thing take turns."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

from cliptrase.files import naming_the_path

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(lock: Path, name: str) -> Iterator[None]:
    """Hold a lock that dies with the process: whoever else wants `name` waits, and says so.

    Raises UserError naming a file that cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with naming_the_path(lock):
            file = stack.enter_context(open(lock, "w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("%s: another process is at it; waiting", name)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
