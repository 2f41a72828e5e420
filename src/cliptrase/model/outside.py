"""Attention of a Python file that is not of this package (`method.file`)."""

import functools
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from cliptrase.config.method_attention import Attention
from cliptrase.errors import UserError
from cliptrase.model import vision


def outside(
    original: vision.Original, blocks: range, attention: Attention
) -> Tensor | vision.Mixed:
    """Tokens (B, L, D) after `blocks`, as the file's function makes them, or with their grid.

    Raises UserError, with the line, for a file or a function that fails.
    """
    assert attention.file is not None and attention.code is not None
    path, _, name = attention.file.rpartition(":")
    function = _function(path, name, attention.code)
    try:
        returned = function(original, blocks, attention)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_told(path, name, error)) from error
    if not isinstance(returned, Tensor | vision.Mixed):
        kind = type(returned).__name__
        raise UserError(f"method.file={path}: {name} returned {kind}; it must return tokens")
    return returned


@functools.cache
def _function(path: str, name: str, code: str) -> Callable[..., object]:
    """A function of a file, which is run once a process for each version of its code."""
    module = f"cliptrase_outside_{code[:16]}"
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        raise UserError(_told(path, "its import", error)) from error
    return getattr(loaded, name)


def _told(path: str, what: str, error: Exception) -> str:
    """What went wrong, and in which line of the file."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == Path(path)]
    place = f", line {lines[-1]}" if lines else ""
    return f"method.file={path}{place}: {what} failed: {type(error).__name__}: {error}"
