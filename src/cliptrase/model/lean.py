"""Importing this module imports open_clip as if timm and transformers were not installed.

It would import both wherever they are, which takes seconds of every start, for towers that are
refused here. They can be imported afterwards. Only for processes of our own: in them open_clip
itself cannot build models of timm or of Hugging Face.
"""

import sys
from typing import Any

UNUSED = ("timm", "transformers")


def _import_open_clip() -> None:
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in UNUSED if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        import open_clip  # noqa: F401
    finally:
        for name in hidden:
            del modules[name]


if "open_clip" not in sys.modules:
    _import_open_clip()
