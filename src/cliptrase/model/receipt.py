"""A model's weights, once for all passes: `python -m cliptrase.model.receipt MODEL FILE`.

open_clip has Hugging Face's library fetch them into its cache. FILE says which file it is, and its
sha256, which is held against the one that the hub names (the cache calls a file by it).
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from cliptrase import config
from cliptrase.config import files
from cliptrase.config.backbones import WEIGHTS, described, read_backbone
from cliptrase.data.fetch.sources import readable
from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.files import sha256_file, write_json
from cliptrase.model.hub import folder_of, is_cached

# Where open_clip has weights from, and how large they are: for people, and without loading torch
HUB = {
    ("ViT-B-16-quickgelu", "openai"): ("timm/vit_base_patch16_clip_224.openai", 599e6),
    ("ViT-L-14-quickgelu", "openai"): ("timm/vit_large_patch14_clip_224.openai", 1.7e9),
}
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class Receipt(TypedDict):
    """What the weights of a model are. checksum_verified: the name of the checksum that the hub
    names, None where it names none."""

    model: str
    file: str
    bytes: int
    sha256: str
    checksum_verified: str | None


def write_receipt(model: str, file: Path) -> Receipt:
    """Fetch the weights of conf/model/<model>.yaml, or of conf/backbone, unless they are there;
    write what they are.

    Raises UserError: unknown model, no network, a cached file that is not what the hub named.
    """
    if model in files.names("backbone"):
        path = folder_of(described(model)) / WEIGHTS
    else:
        spec = config.load("model", model)
        from cliptrase.model.fetch import fetch_weights  # torch

        path, _ = fetch_weights(str(spec["name"]), str(spec["pretrained"]))
    sha256, named = sha256_file(path), path.resolve().name
    verified = bool(re.fullmatch("[0-9a-f]{64}", named))
    if verified and named != sha256:
        raise UserError(
            f"{path.resolve()}: damaged, its sha256 is {sha256}; delete it and run again"
        )
    receipt: Receipt = {
        "model": model,
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "checksum_verified": "sha256" if verified else None,
    }
    write_json(file, receipt)
    return receipt


def size_and_place(model: str) -> tuple[int, bool]:
    """The bytes of a model's weights, 0 where they are not known, and whether they are in the
    hub's cache."""
    import huggingface_hub

    if model in files.names("backbone"):
        return read_backbone(model).bytes or 0, is_cached(described(model))
    spec = config.load("model", model)
    repository, size = HUB.get((str(spec["name"]), str(spec["pretrained"])), ("", 0))
    for name in FILES if repository else ():
        found = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found).stat().st_size, True
    return int(size), False


def cache() -> str:
    """The folder where the hub's library keeps what it fetches."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(HF_HUB_CACHE)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cliptrase.model.receipt", description="Fetch a model's weights."
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a file of conf/model or conf/backbone, as vit_b16"
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="where to write what they are")
    options = parser.parse_args(arguments)
    receipt = write_receipt(options.model, options.file)
    sys.stdout.write(f"{receipt['file']}: {readable(receipt['bytes'])}\n")


if __name__ == "__main__":
    main()
