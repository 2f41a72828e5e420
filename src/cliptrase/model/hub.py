"""Networks beside CLIP as files: found in the hub's cache without asking anyone, or fetched.

Only safetensors are read, never a pickle. Torch is not imported.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub

from cliptrase.config.backbones import CONFIG, WEIGHTS
from cliptrase.config.method import Backbone
from cliptrase.errors import UserError
from cliptrase.files import known_sha256


def folder_of(backbone: Backbone) -> Path:
    """The folder of a network's configuration and weights, fetched if need be; the weights are
    those that conf/backbone, or else the hub, names by their sha256.

    Raises UserError where they are neither in the cache nor reachable, and for a file of another
    content.
    """
    if backbone.path is not None:
        return Path(backbone.path)
    assert backbone.repo is not None
    files = [_cached(backbone.repo, name) or _fetched(backbone, name) for name in (CONFIG, WEIGHTS)]
    if files[0].parent != files[1].parent:  # of two states of the repository
        files = [_fetched(backbone, name) for name in (CONFIG, WEIGHTS)]
    weights = files[1]
    named = backbone.weights_sha256 or weights.resolve().name  # the cache calls a file by it
    found = known_sha256(weights)
    if len(named) == 64 and found != named:
        where, cure = weights.resolve(), "delete it and run again"
        if found == where.name:  # it is what the hub has by now
            cure = (
                f"the hub's file is not the one that conf/backbone/{backbone.label}.yaml names: "
                "correct sha256 there if you trust it, or read a folder with "
                f"method.{backbone.role}=local-dir:DIR"
            )
        raise UserError(f"{where}: its sha256 is {found}, not {named}; {cure}")
    return weights.parent


def is_cached(backbone: Backbone) -> bool:
    """Whether both files are at hand, without asking a hub."""
    if backbone.path is not None:
        return True
    return all(_cached(str(backbone.repo), name) for name in (CONFIG, WEIGHTS))


def _cached(repository: str, name: str) -> Path | None:
    found = huggingface_hub.try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def _fetched(backbone: Backbone, name: str) -> Path:
    cure = f"method.{backbone.role}=local-dir:DIR reads a folder of {CONFIG} and {WEIGHTS}"
    with asking_hub(f"{name} of {backbone.label} ({backbone.repo}) is", cure):
        return Path(huggingface_hub.hf_hub_download(str(backbone.repo), name))


@contextmanager
def asking_hub(what: str, cure: str) -> Iterator[None]:
    """Around a download from the hub: an error there becomes one UserError, "`what` not in the
    cache …; without network, `cure`"."""
    host = urlsplit(huggingface_hub.constants.ENDPOINT).hostname or ""
    try:
        if "https" not in getproxies() and not huggingface_hub.constants.HF_HUB_OFFLINE:
            socket.getaddrinfo(host, 443)  # the hub itself would try for most of a minute
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{what} not in the cache and cannot be fetched from {host} ({reason}); without "
            f"network, {cure}"
        ) from error
