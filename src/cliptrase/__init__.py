"""Training-free open-vocabulary segmentation with CLIP, and the benchmark harness around it.

    from cliptrase import Segmenter
    Segmenter("vit_b16", method="cliptrase", classes=["cat", "sofa"])("photo.jpg").labels

Names are imported on first use (PEP 562), so that planning and `--help` never load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliptrase.config import resolve
    from cliptrase.segmenter import Segmentation, Segmenter

__version__ = "0.1.0"
__all__ = ["Segmentation", "Segmenter", "__version__", "resolve"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cliptrase' has no attribute {name!r}")
    home = "config" if name == "resolve" else "segmenter"
    return getattr(import_module(f"cliptrase.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
