"""Weights that open_clip knows by name: found in the cache without asking anyone, or fetched."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip

from cliptrase.config.weights import CURE
from cliptrase.errors import UserError, nearest
from cliptrase.model.hub import asking_hub


def fetch_weights(name: str, pretrained: str | None) -> tuple[Path, dict[str, Any]]:
    """The weights' file of model `name`, and how its images are to be normalised (mean, std, …).

    `pretrained` is a tag of open_clip's or a file. Raises UserError, before anything is fetched,
    for a name or tag that does not exist or does not fit (QuickGELU, open_clip's issue 771), and
    where the weights are neither in the cache nor reachable.
    """
    config = open_clip.get_model_config(name)
    if config is None:
        hint = nearest(name, open_clip.list_models()).partition("There is:")[0]
        raise UserError(f"unknown model.name {name!r}; {hint or 'see open_clip.list_models()'}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags:
        if pretrained and Path(pretrained).is_file():
            return Path(pretrained), {}
        raise UserError(
            f"model.pretrained={pretrained} is neither a file nor weights of {name}; "
            f"{nearest(str(pretrained), tags)}"
        )
    source = open_clip.get_pretrained_cfg(name, pretrained)
    quick = bool(source.get("quick_gelu"))
    if quick != bool(config.get("quick_gelu")):
        right = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
        raise UserError(
            f"weights {pretrained!r} were trained {'with' if quick else 'without'} QuickGELU; "
            f"take model.name={right}"
        )
    if cached := _cached(source["hf_hub"]):
        return cached, source
    with asking_hub(f"the weights of {name} ({pretrained}) are", CURE), quiet():
        return Path(open_clip.download_pretrained(source)), source


@contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip's root-logger lines off the terminal: what matters is in the one message."""
    root, handler = logging.getLogger(), logging.NullHandler()
    hub = logging.getLogger("huggingface_hub")
    level, disabled = hub.level, root.disabled
    root.addHandler(handler)  # without a handler logging.error() would install one for good
    root.disabled = True
    hub.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hub.setLevel(level)
        root.disabled = disabled
        root.removeHandler(handler)


def _cached(place: str) -> Path | None:
    """The file that open_clip would take from the hub's cache, safetensors first. place: on the
    hub, as open_clip writes it."""
    repository, _, filename = place.rpartition("/")
    filename = filename or "open_clip_pytorch_model.bin"
    safe = f"{filename.rpartition('.')[0]}.safetensors".replace("pytorch_model", "model")
    for candidate in (safe, filename):
        found = huggingface_hub.try_to_load_from_cache(repository, candidate)
        if isinstance(found, str):
            return Path(found)
    return None
