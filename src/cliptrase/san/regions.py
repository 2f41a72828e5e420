"""CLIPtrase's regions of training pictures, each as the mean of its tokens.

    python -m cliptrase.san.regions EXPERIMENT

Supplement B.3: "the features and masks from CLIPtrase and … mask average pooling". The paper does
not say which features: here the tokens after the last block, with its residual and FFN, before the
joint space.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import cliptrase.model.lean  # noqa: F401
from cliptrase.config.method import Method
from cliptrase.data.read.crop import crop_image
from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.evaluate.graph import Graph
from cliptrase.files import atomic_write
from cliptrase.model.attention import in_place
from cliptrase.model.load import Clip, load_clip
from cliptrase.san import command, settings
from cliptrase.san.photographs import teaching_pictures
from cliptrase.san.settings import San
from cliptrase.san.store import scene_of
from cliptrase.segment.vote import region_means
from cliptrase.shapes.stream import Stream

SHUFFLE = 7  # purpose of the stream that shuffles patches
SHOWN = 224  # pixels a side of what CLIPtrase sees of photographs


class Means(NamedTuple):
    """Of R regions: the mean of their tokens (R, D), and of random patches' (R, D) in their place;
    seconds of one core that they took."""

    regions: NDArray[np.float32]
    shuffled: NDArray[np.float32]
    cpu_seconds: float


def region_file(san: San, data: Path | str) -> Path:
    """Where `Means` are kept."""
    return Path(data, "san", f"{san.name}.regions.npz")


def pooled(tokens: Tensor, grid: tuple[int, int], regions: Tensor) -> Tensor:
    """Mean (R, D) of tokens (N, D) on a `grid` over each region that has a pixel, by regions (H, W)
    int64, −1 for none; the tokens are bilinearly upsampled."""
    maps = tokens.T.unflatten(1, grid)[None]
    present = regions.unique()
    return region_means(maps, regions[None])[0, present[present >= 0]]


@torch.inference_mode()
def region_pairs(clip: Clip, method: Method, pictures: Iterator[NDArray[np.uint8]]) -> Means:
    """The regions of pictures (H, W, 3), and the same masks over patches in random order."""
    own, other, start = list[Tensor](), list[Tensor](), time.process_time()
    for number, picture in enumerate(pictures):
        graph = Graph(clip, clip.normalise(picture[None]))
        attention = method.attention
        first = clip.block_index(attention.first_block)
        stop = clip.block_index(attention.last_block) + 1
        tokens = in_place(graph, range(first, stop), attention)[0, 1:]
        regions = graph.regions(method)[0]
        order = np.argsort(Stream(number, SHUFFLE).uniforms(len(tokens)), kind="stable")
        own.append(pooled(tokens, graph.grid, regions))
        other.append(pooled(tokens[torch.from_numpy(order)], graph.grid, regions))
    seconds = time.process_time() - start
    return Means(torch.cat(own).numpy(), torch.cat(other).numpy(), seconds)


def key_of(san: San) -> list[str]:
    """What regions are of: the same settings, and the same code."""
    return [san.regions_key, settings.code_of("regions")]


def write_means(san: San, data: Path | str, made: Means) -> Path:
    """Write the regions of an experiment, and what they are of. Returns the file."""
    with atomic_write(file := region_file(san, data)) as opened:
        np.savez(opened, key=np.array(key_of(san)), **made._asdict())
    return file


def read_means(san: San, data: Path | str) -> Means:
    """The regions of an experiment. Raises UserError where they are not there, of another one or of
    other code."""
    file, cure = region_file(san, data), f"python -m cliptrase.san.regions {san.name}"
    if not file.is_file():
        raise UserError(f"{file}: no such file; make it with `{cure}`")
    with np.load(file) as arrays:
        if arrays.get("key", np.empty(0)).tolist() != key_of(san):
            raise UserError(
                f"{file}: regions of another experiment or of other code; make them with `{cure}`"
            )
        return Means(arrays["regions"], arrays["shuffled"], float(arrays["cpu_seconds"]))


def make_means(san: San, clip: Clip, data: Path | str) -> Means:
    """The regions of the first `init.images` training pictures, as protocol crop sees them."""
    rows = range(san.init.images)
    if san.dataset is None:
        pictures = (scene_of(san, row).image for row in rows)
    else:
        samples = teaching_pictures(san, data)
        pictures = (crop_image(samples[row].image, SHOWN) for row in rows)
    return region_pairs(clip, san.run.method, pictures)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Write the regions' means of an experiment."""
    args = command.parser(__doc__).parse_args(arguments)
    san = settings.load(args.experiment)
    torch.set_num_threads(1)
    made = make_means(san, load_clip(san.run.model), args.data)
    print(write_means(san, args.data, made))


if __name__ == "__main__":
    main()
