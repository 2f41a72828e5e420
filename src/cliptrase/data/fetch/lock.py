"""Processes that want to make the same thing take turns."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cliptrase.files import naming_the_path

LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(path: Path, name: str) -> Iterator[None]:
    """Hold a lock, which ends with the process. Another process that wants `name` logs and waits.

    Raises UserError naming a file that cannot be written.
    """
    lock = FileLock(path)
    with naming_the_path(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            LOG.info("%s: another process is at it; waiting", name)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
