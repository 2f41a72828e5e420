"""Pictures, their classes and CLIP's tokens of them, made once and kept on the disk.

    python -m cliptrase.san.store EXPERIMENT

CLIP is frozen and the pictures are whole, so that no run computes CLIP's blocks again. Half
precision: 0.5 MB a scene.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

import cliptrase.model.lean  # noqa: F401
from cliptrase.data.fetch.sources import readable
from cliptrase.data.read import labels as label_tables
from cliptrase.errors import UserError, counted, exit_on_user_error
from cliptrase.evaluate.targets import Target
from cliptrase.files import claimed, naming_the_path, new_folder, read_json, write_json
from cliptrase.model import vision
from cliptrase.model.load import Clip, load_clip
from cliptrase.san import command, settings
from cliptrase.san.settings import San
from cliptrase.shapes import scenes
from cliptrase.shapes.train import training_scene

FIRST_VALIDATION = (
    5_000_000  # of the validation seeds: others tuned and described with earlier ones
)
NO_CLASS = 255
AT_ONCE = 10  # pictures that are scored together
ABOUT = "store.json"


class Batch(NamedTuple):
    """Pictures (B, H, W, 3) uint8 and the classes of each (H', W') uint8, NO_CLASS where none
    counts; block → CLIP's tokens (B, 1 + N, D) of them, None where its positions learn."""

    pixels: NDArray[np.uint8]
    classes: list[NDArray[np.uint8]]
    tokens: dict[int, torch.Tensor] | None


class Pictures(Protocol):
    """What an experiment learns from, and is scored on."""

    @property
    def scored(self) -> int:
        """How many pictures are scored."""

    def teach(self, rows: Sequence[int], seed: int, step: int) -> Batch:
        """The pictures of these rows, as a step sees them."""

    def to_score(self) -> Iterator[Batch]:
        """All pictures that are scored, in order."""


@dataclass(frozen=True, eq=False)
class Store:
    """The first `pictures` rows are to learn from, the others to score.

    pixels (M, S, S, 3) uint8. classes (M, S, S) uint8, NO_CLASS where none counts. tokens
    (M, T, 1 + N, D) float16: what CLIP's blocks `taken` put out, [CLS] first.
    """

    pixels: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    tokens: NDArray[np.float16]
    taken: tuple[int, ...]
    pictures: int

    @property
    def scored(self) -> int:
        """How many pictures are scored."""
        return len(self.pixels) - self.pictures

    def batch(self, rows: Sequence[int]) -> Batch:
        """Some pictures, tokens in float32."""
        some = torch.from_numpy(np.stack([self.tokens[row] for row in rows])).float()
        tokens = {block: some[:, place] for place, block in enumerate(self.taken)}
        pixels = np.stack([self.pixels[row] for row in rows])
        return Batch(pixels, [self.classes[row] for row in rows], tokens)

    def teach(self, rows: Sequence[int], seed: int, step: int) -> Batch:
        """The pictures of these rows, the same in every step."""
        return self.batch(rows)

    def to_score(self) -> Iterator[Batch]:
        """All pictures that are scored, a few at a time."""
        for start in range(self.pictures, len(self.pixels), AT_ONCE):
            yield self.batch(range(start, min(start + AT_ONCE, len(self.pixels))))


def scene_of(san: San, row: int) -> scenes.Scene:
    """The scene of a row of the store."""
    if row < san.pictures:
        return training_scene(scenes.TRAIN_SEEDS[row])
    return scenes.scene(scenes.VALIDATION_SEEDS[FIRST_VALIDATION + row - san.pictures])


def blocks_after(clip: Clip, tokens: torch.Tensor, taken: Sequence[int]) -> Iterator[torch.Tensor]:
    """Tokens (B, 1 + N, D) after each of the blocks `taken`, ascending (0: what enters the first,
    which is `tokens`), as CLIP computes them."""
    for block in range(taken[-1] + 1):
        if block in taken:
            yield tokens
        if block < taken[-1]:
            tokens = vision.block(clip, block, tokens)


def shapes_of(san: San, clip: Clip) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and kind of number of the arrays of a store."""
    rows, side = san.pictures + san.validation, san.image_size
    tokens = (len(san.taken), 1 + (san.clip_size // clip.patch) ** 2, clip.visual.proj.shape[0])
    return {
        "pixels": ((rows, side, side, 3), "u1"),
        "classes": ((rows, side, side), "u1"),
        "tokens": ((rows, *tokens), "f2"),
    }


@torch.inference_mode()
def make_store(san: San, clip: Clip, data: Path | str) -> Path:
    """Make the store of an experiment whole, or leave none. Returns its folder.

    Raises UserError where the disk has not the room, and for a scene of more classes than queries.
    """
    folder, shapes, target = san.store(data), shapes_of(san, clip), Target.of(san.run)
    start, most = time.process_time(), 0
    with naming_the_path(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_room(folder, sum(int(np.prod(s)) * np.dtype(k).itemsize for s, k in shapes.values()))
        part, handle = claimed(folder, new_folder)
        try:
            arrays = {
                name: np.lib.format.open_memmap(part / f"{name}.npy", "w+", kind, shape)
                for name, (shape, kind) in shapes.items()
            }
            for row in range(san.pictures + san.validation):
                scene = scene_of(san, row)
                classes = classes_of(target, scene.label, f"scene {row}")
                most = max(most, check_queries(san, classes, f"scene {row}"))
                seen = clip.normalise(scene.image[None])
                first = vision.embed_tokens(clip, seen)
                tokens = [each[0] for each in blocks_after(clip, first, san.taken)]
                arrays["pixels"][row], arrays["classes"][row] = scene.image, classes
                arrays["tokens"][row] = torch.stack(tokens).half().numpy()
            for array in arrays.values():
                array.flush()
            del arrays
            seconds = round(time.process_time() - start, 1)
            about = {"key": san.store_key, "code": settings.code_of("store")}
            write_json(part / ABOUT, {**about, "most_classes": most, "cpu_seconds": seconds})
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(part, folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        finally:
            os.close(handle)
    return folder


def classes_of(target: Target, raw: NDArray[np.integer], where: str) -> NDArray[np.uint8]:
    """Classes (H, W) uint8 of raw labels, NO_CLASS where none counts."""
    classes = label_tables.apply(target.lookup, raw, where)
    return np.where(classes == target.lookup.ignore, NO_CLASS, classes).astype(np.uint8)


def check_room(folder: Path, needed: int) -> None:
    """Raise UserError where the disk of `folder` has not `needed` bytes free."""
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise UserError(
            f"{folder}: pictures and CLIP's tokens of them take {readable(needed)}, and "
            f"{readable(free)} are free; free some, take another --data, or fewer pictures"
        )


def check_queries(san: San, classes: NDArray[np.uint8], where: str) -> int:
    """How many classes a picture has, by its classes (H, W). Raises UserError where they are more
    than there are queries to match them."""
    return _refuse_above(san, int(np.setdiff1d(classes, NO_CLASS).size), where)


def _refuse_above(san: San, classes: int, where: str) -> int:
    if classes > san.queries:
        raise UserError(
            f"queries={san.queries}: {where} has {counted(classes, 'class')}, each of which takes "
            "one; take more queries"
        )
    return classes


def open_store(san: San, data: Path | str) -> Store:
    """The store of an experiment. Raises UserError where it is not there, of another one or of
    other code, and where a picture of it has more classes than there are queries now."""
    folder = san.store(data)
    about = read_json(folder / ABOUT) or {}
    if (about.get("key"), about.get("code")) != (san.store_key, settings.code_of("store")):
        raise UserError(
            f"{folder}: no pictures and tokens of this experiment and this code; make them with "
            f"`python -m cliptrase.san.store {san.name}`"
        )
    _refuse_above(san, about["most_classes"], f"a picture of {folder}")
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r")
        for name in ("pixels", "classes", "tokens")
    }
    return Store(**arrays, taken=san.taken, pictures=san.pictures)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Make the store of an experiment."""
    args = command.parser(__doc__).parse_args(arguments)
    san = settings.load(args.experiment)
    if san.train_positions:
        raise UserError(f"{san.name}: train_positions: true changes CLIP's tokens, none are kept")
    torch.set_num_threads(1)
    print(make_store(san, load_clip(san.run.model), args.data))


if __name__ == "__main__":
    main()
