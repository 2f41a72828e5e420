"""Which file each picture's results go to, and writing them: all of a picture's files or none."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cliptrase.errors import UserError, nearest
from cliptrase.files import atomic_write, naming_the_path

SUFFIXES = {  # option → the endings it may write, the one used inside a folder first
    "--labels": (".png",),
    "--overlay": (".png", ".jpg", ".jpeg", ".webp"),
    "--json": (".json",),
}


def plan_outputs(
    images: Sequence[Path], options: Mapping[str, str | None]
) -> list[dict[str, Path]]:
    """For each picture: option → file, for the options that were given.

    OUT is a file; or a folder (it exists, or OUT ends in /), which gets one file a picture, named
    after it; or a pattern with {name} in it, the picture's name without its ending. With several
    pictures it must be one of the last two.

    Raises UserError: an ending that the option cannot write, one file for several pictures, two
    results with the same file, a result in the place of a picture.
    """
    given = {option: out for option, out in options.items() if out is not None}
    planned = [
        {option: _file(option, out, image, len(images)) for option, out in given.items()}
        for image in images
    ]
    taken: dict[Path, str] = {image.resolve(): f"the picture {image}" for image in images}
    for image, files in zip(images, planned, strict=True):
        for option, file in files.items():
            what = f"{option} of {image}"
            if (other := taken.setdefault(file.resolve(), what)) is not what:
                raise UserError(
                    f"{option} {given[option]}: {what} would be written to {file}, the place of "
                    f"{other}; give another name, another folder or a pattern with {{name}}"
                )
    return planned


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write every file, or none of them where one cannot be written (a full disk → UserError)."""
    with contextlib.ExitStack() as stack:
        for path, content in contents.items():
            file = stack.enter_context(atomic_write(path))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a full disk shows before the first file is in its place


def _file(option: str, out: str, image: Path, images: int) -> Path:
    suffixes = SUFFIXES[option]
    with naming_the_path(out):
        is_folder = out.endswith(("/", os.sep)) or Path(out).is_dir()
    if is_folder:
        return Path(out, image.stem + suffixes[0])
    path = Path(out.replace("{name}", image.stem))
    if images > 1 and "{name}" not in out:
        raise UserError(
            f"{option} {out}: one file for {images} pictures; give a folder (end it in /) or put "
            "{name} into the file's name"
        )
    if path.suffix.lower() not in suffixes:
        raise UserError(
            f"{option} {out}: cannot write {path.suffix or 'a file without ending'!r} here. "
            + nearest(path.suffix, suffixes)
        )
    return path
