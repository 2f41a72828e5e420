"""`cliptrase segment`: pictures and words in; label maps, overlays and shares out."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cliptrase.cli import pictures
from cliptrase.data.read.vocabularies import BACKGROUND
from cliptrase.errors import UserError, is_read, nearest, printable
from cliptrase.files import atomic_write, check_writable, local_path, naming_the_path

if TYPE_CHECKING:
    from cliptrase.segmenter import Segmenter

HELP = "label every pixel of pictures with words of your own"

EPILOG = """\
OUT is a file, or a folder (an existing one, or a name ending in /), which gets one file a picture,
named after the picture, or a pattern with {name} in it. With several pictures it must be a folder
or a pattern. Without any OUT, the share of each class is printed.

A class may have several names, with | between them: --classes "sofa|couch, wall" shows "sofa".

examples:
  cliptrase segment photo.jpg --classes "cat, sofa, wall" --overlay photo.overlay.png
  cliptrase segment *.jpg --classes-file words.txt --background "sky, ground" --labels masks/
  cliptrase segment scene.png --classes "zebra, ladybug" --model shapes_clip --json "{name}.json"
"""
SUFFIXES = {  # option → the endings it may write, the one used inside a folder first
    "--labels": (".png",),
    "--overlay": (".png", ".jpg", ".jpeg", ".webp"),
    "--json": (".json",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EPILOG
    pictures.add_words(parser, required=True)
    pictures.add_settings(parser)
    add = parser.add_argument
    add(
        "--labels",
        type=local_path,
        metavar="OUT",
        help="class indices as 8 bit PNG (16 bit over 255)",
    )
    add("--overlay", type=local_path, metavar="OUT", help="the picture, painted, with a legend")
    add("--json", type=local_path, metavar="OUT", help="shares, regions, sizes, model and method")


def run(args: argparse.Namespace) -> None:
    """Check all that was given, then load the model, then write each picture's files, one by one.

    A file that cannot be written costs no other, and a picture that cannot be segmented neither.
    Raises UserError, once all the others are written.
    """
    classes, background = pictures.read_words(args)
    options = {"--labels": args.labels, "--overlay": args.overlay, "--json": args.json}
    planned = plan_outputs(args.images, options)
    image_size = pictures.check_settings(args)
    names = [*classes, *([BACKGROUND] if background else [])]
    for size, files in zip(pictures.check_pictures(args), planned, strict=True):
        if "--overlay" in files:
            from cliptrase.cli import contents  # not for --help

            seen = (image_size, image_size) if args.crop else size
            contents.check_overlay(files["--overlay"], seen, names)
    segmenter = pictures.segmenter_of(args, classes, background)
    faults = list[str]()
    for image, files in zip(args.images, planned, strict=True):
        if not files and not is_read():
            break  # as `… | head -1`
        for fault in _segment(segmenter, image, files):
            faults.append(fault)
            if len(args.images) > 1:
                print(printable(f"error: {fault}"), file=sys.stderr)
    if len(args.images) > 1 and faults:
        faults = [f"files or pictures that failed, see above: {len(faults)}; the others stand"]
    if faults:
        raise UserError("; ".join(faults))


def _segment(segmenter: "Segmenter", image: Path, files: Mapping[str, Path]) -> Iterator[str]:
    """Write the files of one picture, or print the shares where there are none; what went wrong."""
    from cliptrase.cli import contents
    from cliptrase.runs.label_files import labels_png

    try:
        segmentation = segmenter(image)
    except UserError as error:
        yield str(error) if str(image) in str(error) else f"{image}: {error}"
        return
    if not files:
        print(printable(contents.shares(image, segmentation)), flush=True)
    for option, file in files.items():
        try:
            if option == "--labels":
                content = labels_png(segmentation.labels, len(segmentation.names))
            elif option == "--overlay":
                content = contents.overlay(file, segmenter.seen(image), segmentation)
            else:
                content = contents.report(image, segmenter, segmentation)
            with atomic_write(file) as written:
                written.write(content)
        except UserError as error:
            yield str(error)
        except MemoryError:
            yield f"{file}: too large for this machine's memory; shrink the picture first"
        else:
            print(printable(f"wrote {file}"), flush=True)


def plan_outputs(
    images: Sequence[Path], options: Mapping[str, str | None]
) -> list[dict[str, Path]]:
    """For each picture: option → file, for the options that were given, as EPILOG says of OUT.

    Raises UserError: an ending that the option cannot write, one file for several pictures, two
    results with the same file, a result in the place of a picture, a place that cannot be written.
    """
    given = {option: out for option, out in options.items() if out is not None}
    planned = [
        {option: _file(option, out, image, len(images)) for option, out in given.items()}
        for image in images
    ]
    taken: dict[str, str] = {os.path.realpath(image): f"the picture {image}" for image in images}
    for image, files in zip(images, planned, strict=True):
        for option, file in files.items():
            what = f"{option} of {image}"
            if (other := taken.setdefault(os.path.realpath(file), what)) is not what:
                raise UserError(
                    f"{option} {given[option]}: {what} would be written to {file}, the place of "
                    f"{other}; give another name, another folder or a pattern with {{name}}"
                )
            check_writable(file)
    return planned


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
