"""`cliptrase segment`: pictures and words in; label maps, overlays and shares out."""

import argparse
import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cliptrase.data.read.vocabularies import SEPARATOR, read_names, split_classes
from cliptrase.errors import UserError, nearest, printable
from cliptrase.files import atomic_write, naming_the_path

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
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="JPEG, PNG, WebP, TIFF …")
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument("--classes", metavar='"A, B"', help="the classes, separated by commas")
    words.add_argument("--classes-file", metavar="FILE", help="one class a line, verbatim")
    back = parser.add_mutually_exclusive_group()
    back.add_argument("--background", metavar='"A, B"', help="words for what is not asked for")
    back.add_argument("--background-file", metavar="FILE", help="one background word a line")
    models = "shapes_clip (offline), vit_b16 (default), local-dir:DIR …"
    add("--model", default="vit_b16", help=models)
    add("--method", default="cliptrase", help="default: cliptrase")
    size = "short side for the model (default: as trained)"
    add("--image-size", type=int, metavar="N", help=size)
    add("--templates", default="imagenet80", help="a shipped list of prompts, or a text file")
    add(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="keys of the configuration, as method.regions.eps=0.8",
    )
    add("--labels", metavar="OUT", help="class indices as 8 bit PNG (16 bit over 255)")
    add("--overlay", metavar="OUT", help="the picture, painted, with a legend")
    add("--json", metavar="OUT", help="shares, regions, sizes, model and method")
    crop = "only the N × N centre crop, as benchmarks see it"
    add("--crop", action="store_true", help=crop)
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def run(args: argparse.Namespace) -> None:
    """Check every input, then load the model, then write each picture's files together."""
    classes = _words(args.classes, "--classes", args.classes_file, unique=True)
    background = _words(args.background, "--background", args.background_file, unique=False)
    options = {"--labels": args.labels, "--overlay": args.overlay, "--json": args.json}
    planned = plan_outputs(args.images, options)

    from cliptrase.cli import contents
    from cliptrase.data.read.images import read_image  # PIL and torch: after what fails quickly
    from cliptrase.segmenter import Segmenter, check_length

    for image in args.images:
        picture = read_image(image)
        if not args.crop:
            check_length(picture, str(image))
    segmenter = Segmenter(
        args.model,
        method=args.method,
        classes=classes,
        background=background or None,
        image_size=args.image_size,
        device=args.device,
        templates=args.templates,
        crop=args.crop,
        overrides=args.overrides,
    )
    for image, files in zip(args.images, planned, strict=True):
        picture = read_image(image)
        segmentation = segmenter(picture)
        if not files:
            print(printable(contents.shares(image, segmentation)))
        written = {}
        for option, file in files.items():
            if option == "--labels":
                written[file] = contents.labels_png(segmentation.labels, len(segmentation.names))
            elif option == "--overlay":
                written[file] = contents.overlay(file, segmenter.seen(picture), segmentation)
            else:
                written[file] = contents.report(image, segmenter, segmentation)
        write_together(written)
        for file in files.values():
            print(printable(f"wrote {file}"))


def _words(listed: str | None, option: str, file: str | None, *, unique: bool) -> list[str]:
    """The entries of the option or of its file (then verbatim); none of both: []."""
    if file is not None:
        entries = read_names(file)
        split_classes(entries, file, unique=unique)
        return entries
    if listed is None:
        return []
    words = [
        SEPARATOR.join(name.strip() for name in word.split(SEPARATOR)) for word in listed.split(",")
    ]
    if not any(words):
        raise UserError(f'{option}: the list is empty; write at least one name, as "cat, sofa"')
    split_classes(words, option, unique=unique, entry="entry")
    return words


def plan_outputs(
    images: Sequence[Path], options: Mapping[str, str | None]
) -> list[dict[str, Path]]:
    """For each picture: option → file, for the options that were given, as EPILOG says of OUT.

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
