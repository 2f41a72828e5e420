"""Importing this module imports open_clip as if timm and transformers were not installed.

It would import both wherever they are, which takes seconds of every start, for towers that are
refused here. They can be imported afterwards. Only for processes of our own: in them open_clip
itself cannot build models of timm or of Hugging Face.

Nor does torchvision import torch's compiler, as long as the rest of the start, for one function.
"""

import sys
from types import ModuleType
from typing import Any

UNUSED = ("timm", "transformers")
COMPILER = ("torch._dynamo", "torch._dynamo.utils")


def _is_compile_supported(device_type: str) -> bool:
    """torch._dynamo.utils.is_compile_supported, imported when torchvision's roi_align asks."""
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))


def _import_open_clip() -> None:
    modules: dict[str, Any] = sys.modules
    stand_ins: dict[str, Any] = dict.fromkeys(UNUSED)
    stand_ins |= {name: ModuleType(name) for name in COMPILER}
    stand_ins[COMPILER[-1]].is_compile_supported = _is_compile_supported
    hidden = {name: each for name, each in stand_ins.items() if name not in modules}
    modules.update(hidden)
    try:
        import open_clip  # noqa: F401
    finally:
        for name in hidden:
            del modules[name]


if "open_clip" not in sys.modules:
    _import_open_clip()
