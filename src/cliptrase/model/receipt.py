"""A model's weights, once for all passes: `python -m cliptrase.model.receipt MODEL FILE`.

open_clip has Hugging Face's library fetch them into its cache. FILE says which file it is, and its
sha256, which is held against the one that the hub names (the cache calls a file by it).
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliptrase import config
from cliptrase.data.fetch.sources import readable
from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.files import sha256_file, write_json

# Where open_clip has weights from, and how large they are: for people, and without loading torch
HUB = {
    ("ViT-B-16-quickgelu", "openai"): ("timm/vit_base_patch16_clip_224.openai", 599e6),
    ("ViT-L-14-quickgelu", "openai"): ("timm/vit_large_patch14_clip_224.openai", 1.7e9),
}
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def write_receipt(model: str, file: Path) -> dict[str, Any]:
    """Fetch the weights of conf/model/<model>.yaml unless they are there; write what they are.

    Raises UserError: unknown model, no network, a cached file that is not what the hub named.
    """
    spec = config.load("model", model)
    from cliptrase.model.fetch import fetch_weights  # torch

    path, _ = fetch_weights(str(spec["name"]), str(spec["pretrained"]))
    sha256, named = sha256_file(path), path.resolve().name
    verified = bool(re.fullmatch("[0-9a-f]{64}", named))
    if verified and named != sha256:
        raise UserError(
            f"{path.resolve()}: damaged, its sha256 is {sha256}; delete it and run again"
        )
    receipt = {
        "model": model,
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "checksum_verified": "sha256" if verified else None,
    }
    write_json(file, receipt)
    return receipt


def size_and_place(model: str) -> tuple[str, str]:
    """How large the weights of a model are, and whether they are in the cache; for people."""
    import huggingface_hub

    spec = config.load("model", model)
    repository, size = HUB.get((str(spec["name"]), str(spec["pretrained"])), ("", 0))
    if not repository:
        return "size unknown", "to be fetched unless they are in the cache"
    for name in FILES:
        found = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return readable(Path(found).stat().st_size), "in the cache"
    return readable(int(size)), "to be fetched"


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cliptrase.model.receipt", description="Fetch a model's weights."
    )
    parser.add_argument("model", metavar="MODEL", help="a file of conf/model, as vit_b16")
    parser.add_argument("file", metavar="FILE", type=Path, help="where to write what they are")
    options = parser.parse_args(arguments)
    receipt = write_receipt(options.model, options.file)
    sys.stdout.write(f"{receipt['file']}: {readable(receipt['bytes'])}\n")


if __name__ == "__main__":
    main()
