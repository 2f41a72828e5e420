"""A user's own folder of pictures and folder of masks, paired by name and checked before use."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cliptrase.errors import UserError
from cliptrase.files import known_sha256, once_a_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
SWAPPED = "are benchmark.images and benchmark.labels swapped?"


@dataclass(frozen=True)
class Pair:
    """A picture and its mask; `id` is the name that both share, less the suffix."""

    id: str
    image: Path
    mask: Path


def pairs(images: Path | str, labels: Path | str) -> list[Pair]:
    """Every picture of a folder with its mask of another, sorted by id, subfolders left out.

    Raises UserError naming the folder or files: a missing or empty folder, the same folder twice, a
    missing mask, a mask without a picture, two files of one name.
    """
    pictures = _by_stem(_folder(images, "benchmark.images"), IMAGE_SUFFIXES, "picture")
    masks = _masks(labels)
    if Path(images).resolve() == Path(labels).resolve():
        raise UserError(f"{images}: given as images and as labels; put the masks into their own")
    lacking = sorted(pictures.keys() - masks.keys())
    if lacking:
        raise UserError(_lacking(lacking, pictures, Path(labels)))
    extra = sorted(masks.keys() - pictures.keys())
    if extra:
        raise UserError(
            f"{masks[extra[0]]}: a mask without a picture in {images}{_and_more(extra)}; "
            f"masks are named like their pictures ({', '.join(IMAGE_SUFFIXES)})"
        )
    return [Pair(stem, pictures[stem], masks[stem]) for stem in sorted(pictures)]


def ignore_value(labels: Path | str) -> int:
    """What means "ignored" in a folder of masks: 255, or 65535 where they hold 16 bits.

    Only headers are read. Raises UserError: missing or empty folder, masks of both kinds.
    """
    mask_of = {_bits(path): path for path in reversed(_masks(labels).values())}
    if len(mask_of) > 1:
        raise UserError(
            f"{labels}: {mask_of[8].name} has 8 bits and {mask_of[16].name} has 16, so the ignored "
            "value is unclear; save all masks alike"
        )
    return 255 if 8 in mask_of else 65535


def folder_digest(images: Path | str, labels: Path | str) -> str:
    """sha256 over the names, sizes and contents of all pictures and masks, wherever they lie.

    Raises UserError as `pairs`.
    """
    paired = pairs(images, labels)
    files = [("image", pair.image) for pair in paired] + [("mask", pair.mask) for pair in paired]
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(known_sha256, (path for _, path in files))
        lines = [
            f"{kind}/{path.name}\0{path.stat().st_size}\0{digest}\n"
            for (kind, path), digest in zip(files, digests, strict=True)
        ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _folder(path: Path | str, key: str) -> Path:
    if not Path(path).is_dir():
        what = "a file, not a folder" if Path(path).exists() else "no such folder"
        raise UserError(f"{path}: {what}; {key} must name a folder")
    return Path(path)


def _masks(labels: Path | str) -> dict[str, Path]:
    return _by_stem(_folder(labels, "benchmark.labels"), MASK_SUFFIXES, "mask")


def _by_stem(folder: Path, suffixes: Iterable[str], what: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    others: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix.lower() not in suffixes:
            others.append(path.suffix)
        elif path.stem in files:
            raise UserError(
                f"{path}: the same name as {files[path.stem].name}; keep one {what} of that name"
            )
        else:
            files[path.stem] = path
    if not files:
        hint = "subfolders are not searched"
        if any(suffix.lower() in IMAGE_SUFFIXES for suffix in others):
            hint = f"it holds pictures ({sorted(set(others))[0]}): {SWAPPED}"
        raise UserError(f"{folder}: no {what} in this folder ({', '.join(suffixes)}); {hint}")
    return files


def _lacking(lacking: list[str], pictures: dict[str, Path], labels: Path) -> str:
    picture = pictures[lacking[0]]
    near = sorted(path.name for path in labels.glob(f"{picture.stem}.*"))
    if near:
        return f"{labels / near[0]}: {Path(near[0]).suffix} is no format for masks; save it as PNG"
    return (
        f"{labels}: no mask for {picture.name}{_and_more(lacking)}; "
        f"add {picture.stem}.png or remove the picture"
    )


def _and_more(names: list[str]) -> str:
    return f" (nor for {len(names) - 1} more)" if len(names) > 1 else ""


@once_a_file
def _bits(path: Path) -> int:
    from cliptrase.data.read.images import read_header

    return read_header(path).bits
