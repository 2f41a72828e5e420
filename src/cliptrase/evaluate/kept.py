"""Files of arrays that a later start reads back: text features, and the counts of a pass under way.

A .npz file that ends with the sha256 of its name and of all that precedes. One that is not just
what was written under this name, as with one bit turned over, is not read: it is made again.
"""

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cliptrase.files import atomic_write

log = logging.getLogger(__name__)
DIGEST = hashlib.sha256().digest_size


def write(path: Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write arrays by name. Raises UserError as `atomic_write`."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    with atomic_write(path) as file:
        file.write(content.getbuffer())
        file.write(_digest(path, content.getbuffer()))


def read(path: Path, cure: str) -> dict[str, NDArray] | None:
    """The arrays of a file; None where there is none.

    None, and a line that says so and what is done about it (`cure`), where it cannot be read or is
    not what was written.
    """
    try:
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read (%s): %s", path, error.strerror, cure)
        return None
    if content[-DIGEST:] != _digest(path, content[:-DIGEST]):
        log.warning("%s is not what was written: %s", path, cure)
        return None
    with np.load(io.BytesIO(content[:-DIGEST]), allow_pickle=False) as file:
        return dict(file)


def _digest(path: Path, content: memoryview) -> bytes:
    digest = hashlib.sha256(path.name.encode() + b"\0")
    digest.update(content)
    return digest.digest()
