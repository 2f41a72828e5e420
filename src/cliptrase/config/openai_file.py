"""OpenAI's own CLIP files (ViT-B-16.pt, …): TorchScript archives, read without running their code.

Torch-free: what a file holds is known before torch is imported.
"""

import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cliptrase.config.files import Tree
from cliptrase.errors import UserError
from cliptrase.files import once_a_file


class Stored(NamedTuple):
    """A tensor in an archive: its numbers are those of the entry `data/<key>`, from `offset` on."""

    storage: str  # as HalfStorage
    key: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@once_a_file
def tensors(path: Path) -> dict[str, Stored]:
    """The tensors of an archive by their names in the model.

    Raises UserError for what is no such archive, is damaged or holds no ViT of CLIP.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            data = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(data) as file:
                stored = dict(_named(_Unpickler(file).load()))
    except (zipfile.BadZipFile, StopIteration):
        raise UserError(
            f"{path}: not an archive of OpenAI's CLIP, or cut off; model=openai_file reads their "
            "own files, as ViT-B-16.pt"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check model.path") from error
    except Exception as error:  # whatever nonsense makes of a pickle
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: damaged, or not a CLIP file ({said}); get it again") from error
    if "visual.layer1.0.conv1.weight" in stored:
        raise UserError(f"{path}: a ResNet, which has no patches; take one of OpenAI's ViT files")
    return {name: tensor for name, tensor in stored.items() if not name.endswith("attn_mask")}


def entries(path: Path) -> Iterator[tuple[str, Stored, bytes]]:
    """Name, place and bytes of each tensor. Raises UserError as `tensors`."""
    stored = tensors(path)
    try:
        with zipfile.ZipFile(path) as archive:
            folder = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            for name, tensor in stored.items():
                place = f"{folder.removesuffix('data.pkl')}data/{tensor.key}"
                yield name, tensor, archive.read(place)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ({error}); get it again") from error


def architecture(path: Path) -> Tree:
    """What open_clip calls the configuration of the model: of a ViT of CLIP, as OpenAI made them.

    Raises UserError as `tensors`.
    """
    size = {name: tensor.size for name, tensor in tensors(path).items()}
    try:
        width, _, patch, _ = size["visual.conv1.weight"]
        grid = round((size["visual.positional_embedding"][0] - 1) ** 0.5)
        text = size["ln_final.weight"][0]
        return {
            "embed_dim": size["text_projection"][1],
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": patch * grid,
                "layers": _blocks(size, "visual.transformer.resblocks."),
                "width": width,
                "patch_size": patch,
            },
            "text_cfg": {
                "context_length": size["positional_embedding"][0],
                "vocab_size": size["token_embedding.weight"][0],
                "width": text,
                "heads": text // 64,
                "layers": _blocks(size, "transformer.resblocks."),
            },
        }
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path}: holds no ViT of CLIP (it lacks {error}); model=openai_file reads "
            "OpenAI's own files, as ViT-B-16.pt"
        ) from None


def _blocks(names: Iterable[str], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})


class _Inert(dict[str, Any]):
    """In the place of every object of an archive: its attributes, and nothing that runs."""

    def __new__(cls, *_: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_: object):
        super().__init__()

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update(state)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "_rebuild_tensor_v2":
            return lambda place, *rest: Stored(place[0], place[1], *rest[:3])
        return name if name.endswith("Storage") else _Inert

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        return str(pid[1]), str(pid[2])


def _named(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Stored]]:
    for name, value in tree.items():
        if isinstance(value, Stored):
            yield f"{prefix}{name}", value
        elif isinstance(value, dict):
            yield from _named(value, f"{prefix}{name}.")
