"""A user's own folder of pictures and folder of masks, paired by name and checked before use."""

import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cliptrase.data.read.patterns import File, fitting
from cliptrase.errors import UserError
from cliptrase.files import known_sha256, once_a_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
SWAPPED = "are benchmark.images and benchmark.labels swapped?"


@dataclass(frozen=True)
class Pair:
    """A picture and its mask; `id` is the picture's place in its folder, less the suffix."""

    id: str
    image: Path
    mask: Path


def pairs(
    images: Path | str, labels: Path | str, image: str | None = None, mask: str | None = None
) -> list[Pair]:
    """Every picture of a folder with its mask of another, sorted by id.

    image, mask: patterns of their names (`patterns`); None: any picture, and a mask of its stem.
    Subfolders are searched where one of them has `**/`: a mask belongs to the picture in the same
    subfolder, else to the only one of its stem or name.

    Raises UserError naming the folder or files: a missing or empty folder, the same folder twice, a
    missing mask, a mask without a picture, two files of one name, an unclear pattern.
    """
    key = "name" if mask and "{name}" in mask else "stem"
    pictures, (masks, others) = _pictures(images, image, mask), _masks(labels, image, mask)
    if mask:  # they may lie side by side
        ours = {os.path.abspath(file.path) for file in masks}
        pictures = [file for file in pictures if os.path.abspath(file.path) not in ours]
    elif Path(images).resolve() == Path(labels).resolve():
        raise UserError(
            f"{images}: given as images and as labels; put the masks into their own, or say how "
            "they are named, as benchmark.mask={stem}_mask.png"
        )
    _refuse_doubles(pictures, key, "picture")
    named: dict[str, dict[str, File]] = {}
    for file in _refuse_doubles(masks, key, "mask"):
        named.setdefault(getattr(file, key), {})[file.at] = file
    lacking, mask_of, picture_of = list[File](), dict[Path, Path](), dict[Path, Path]()
    for file in pictures:
        near = named.get(getattr(file, key), {})
        found = near.get(file.at) or (next(iter(near.values())) if len(near) == 1 else None)
        if found is None and near:
            places = " and ".join(str(other.path) for other in near.values())
            raise UserError(f"{file.path}: {places} are both named like it; keep one mask")
        if found is None:
            lacking.append(file)
            continue
        mask_of[file.path] = found.path
        if (other := picture_of.setdefault(found.path, file.path)) != file.path:
            raise UserError(f"{found.path}: the only mask for {other} and {file.path}; add another")
    if lacking:
        meant = _meant(image, mask, lacking[0], pictures, masks)
        raise UserError(_without_mask(labels, mask, lacking, masks, others, meant))
    extra = [file.path for file in masks if file.path not in picture_of]
    if extra:
        raise UserError(
            f"{extra[0]}: a mask without a picture in {images}{_and_more(extra)}; "
            f"masks are named like their pictures ({', '.join(IMAGE_SUFFIXES)})"
        )
    ids = [file.place if key == "name" else file.place.rpartition(".")[0] for file in pictures]
    return [
        Pair(id, file.path, mask_of[file.path])
        for id, file in sorted(zip(ids, pictures, strict=True), key=lambda pair: pair[0])
    ]


def ignore_value(labels: Path | str, image: str | None = None, mask: str | None = None) -> int:
    """What means "ignored" in a folder of masks: 255, or 65535 where they hold 16 bits.

    Only headers are read. Raises UserError: missing or empty folder, masks of both kinds.
    """
    masks, _ = _masks(labels, image, mask)
    mask_of = {_bits(file.path): file.place for file in reversed(masks)}
    if len(mask_of) > 1:
        raise UserError(
            f"{labels}: {mask_of[8]} has 8 bits and {mask_of[16]} has 16, so the ignored "
            "value is unclear; save all masks alike, or give benchmark.ignore"
        )
    return 255 if 8 in mask_of else 65535


def folder_digest(
    images: Path | str, labels: Path | str, image: str | None = None, mask: str | None = None
) -> str:
    """sha256 over the names, sizes and contents of all pictures and masks, wherever they lie.

    Raises UserError as `pairs`.
    """
    paired = pairs(images, labels, image, mask)
    return digest_of(contents(paired), paired, images, labels)


def digest_of(
    digests: Mapping[Path, str], paired: Sequence[Pair], images: Path | str, labels: Path | str
) -> str:
    """`folder_digest` from the `contents` of the pairs."""
    files = [("image", images, pair.image) for pair in paired]
    files += [("mask", labels, pair.mask) for pair in paired]
    lines = [
        f"{kind}/{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0{digests[path]}\n"
        for kind, folder, path in files
    ]
    # names need not be UTF-8
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def contents(paired: Sequence[Pair]) -> dict[Path, str]:
    """The sha256 of every picture, then of every mask. Raises UserError for one without bytes."""
    files = [pair.image for pair in paired] + [pair.mask for pair in paired]
    try:
        with ThreadPoolExecutor(4) as pool:
            return dict(zip(files, pool.map(known_sha256, files), strict=True))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _pictures(images: Path | str, image: str | None, mask: str | None) -> list[File]:
    pattern = image or ("**/*" if mask and "**/" in mask else "*")
    return _files(Path(images), "images", "image", pattern, IMAGE_SUFFIXES)[0]


def _masks(labels: Path | str, image: str | None, mask: str | None) -> tuple[list[File], ...]:
    """The masks, and the files of their names that are none."""
    pattern = mask or ("**/{stem}" if image and "**/" in image else "{stem}")
    return _files(Path(labels), "labels", "mask", pattern, MASK_SUFFIXES)


def _files(
    folder: Path, where: str, key: str, pattern: str, suffixes: tuple[str, ...]
) -> tuple[list[File], list[File]]:
    """The files that fit a pattern, sorted; and those that do but have another suffix."""
    if not folder.is_dir():
        found = "a file, not a folder" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {found}; benchmark.{where} must name a folder")
    files = fitting(folder, key, pattern)
    usable = [file for file in files if file.path.suffix.lower() in suffixes]
    others = [file for file in files if file.path.suffix.lower() not in suffixes]
    if usable:
        return usable, others
    what, plain = "picture" if key == "image" else "mask", pattern in ("*", "{stem}")
    hint = f"none is named as benchmark.{key}={pattern} says"
    if plain:
        hint = "subfolders are not searched, unless a pattern says so: benchmark.mask=**/{stem}.png"
    other = [file.path.suffix for file in others if file.path.suffix.lower() in IMAGE_SUFFIXES]
    foreign = other or [file.path.suffix for file in others if file.path.suffix]
    if other:
        hint = f"it holds pictures ({min(other)}): {SWAPPED}"
    if foreign and not (other and plain):
        hint = f"{min(foreign)} is no format for {what}s; save them as PNG"
    raise UserError(f"{folder}: no {what} in this folder ({', '.join(suffixes)}); {hint}")


def _refuse_doubles(files: list[File], key: str, what: str) -> list[File]:
    """The same files. Raises UserError for two of one name in one folder."""
    seen: dict[tuple[str, str], File] = {}
    for file in files:
        if (other := seen.setdefault((file.at, getattr(file, key)), file)) is not file:
            raise UserError(
                f"{file.path}: the same name as {other.place}; keep one {what} of that name"
            )
    return files


def _without_mask(
    labels: Path | str,
    pattern: str | None,
    lacking: list[File],
    masks: list[File],
    others: list[File],
    meant: str,
) -> str:
    """What is said of the first picture that has no mask; with the key that was meant, if any."""
    picture = lacking[0]
    for file in others:
        if file.stem == picture.stem and pattern is None:
            return f"{file.path}: {file.path.suffix} is no format for masks; save it as PNG"
    for file in masks:
        if _folded(file.stem) == _folded(picture.stem):
            return (
                f"{labels}: no mask for {picture.place!a}; {file.place!a} looks like it, but is "
                "spelt with other characters: rename one of them"
            )
    wanted = (pattern or "{stem}.png").replace("**/", "")
    wanted = wanted.replace("{stem}", picture.stem).replace("{name}", picture.name)
    cure = f"{meant}add {wanted} or remove the picture"
    return f"{labels}: no mask for {picture.place}{_and_more(lacking)}; {cure}"


def _meant(
    image: str | None, mask: str | None, picture: File, pictures: list[File], masks: list[File]
) -> str:
    """The key by which this picture and most of the others find a mask, and that mask; or ""."""
    deep = "**/" if "**/" in (mask or image or "") else ""
    stems, names = {file.stem for file in masks}, {file.path.name for file in masks}
    for file in masks:
        name = file.path.name
        if mask is None and name.startswith(picture.stem):
            field = "name" if name.startswith(picture.name) else "stem"
            end = name.removeprefix(getattr(picture, field))
            fit = sum(getattr(each, field) + end in names for each in pictures)
            meant = f"benchmark.mask={deep}{{{field}}}{end}"
        elif mask and picture.stem.startswith(file.stem):
            end = picture.path.name.removeprefix(file.stem)
            fitting_names = {f"{stem}{end}" for stem in stems}
            fit = sum(each.path.name in fitting_names for each in pictures)
            meant = f"benchmark.image={deep}{{stem}}{end}"
        else:
            continue
        if 2 * fit > len(pictures):
            return f"give {meant} if {name} is its mask; "
    return ""


def _folded(name: str) -> str:
    """The same for names that look alike: accents composed or not, capitals or not."""
    return unicodedata.normalize("NFKC", name).casefold()


def _and_more(names: Sequence[object]) -> str:
    return f" (nor for {len(names) - 1} more)" if len(names) > 1 else ""


@once_a_file
def _bits(path: Path) -> int:
    from cliptrase.data.read.images import read_header

    return read_header(path).bits
