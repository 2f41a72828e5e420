"""What commands on pictures have in common: words, model and method, and pictures that are read."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cliptrase.cli.overrides import add_overrides
from cliptrase.data.read.vocabularies import (
    SEPARATOR,
    check_apart,
    check_labels,
    read_names,
    read_templates,
    split_classes,
    template_path,
)
from cliptrase.errors import UserError
from cliptrase.files import local_path, user_path
from cliptrase.machine import check_gpu

if TYPE_CHECKING:
    from cliptrase.segmenter import Segmenter


def add_words(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the pictures, and the options for classes and background words."""
    parser.add_argument(
        "images", nargs="+", type=user_path, metavar="IMAGE", help="JPEG, PNG, WebP, TIFF …"
    )
    words = parser.add_mutually_exclusive_group(required=required)
    words.add_argument("--classes", metavar='"A, B"', help="the classes, separated by commas")
    words.add_argument(
        "--classes-file", type=local_path, metavar="FILE", help="one class a line, verbatim"
    )
    back = parser.add_mutually_exclusive_group()
    back.add_argument("--background", metavar='"A, B"', help="words for what is not asked for")
    back.add_argument(
        "--background-file", type=local_path, metavar="FILE", help="one background word a line"
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options for the model, the method and what they see of a picture."""
    add = parser.add_argument
    models = "shapes_clip (offline), vit_b16 (default), local-dir:DIR …"
    add("--model", default="vit_b16", help=models)
    add("--method", default="cliptrase", help="default: cliptrase")
    size = "short side for the model (default: as trained)"
    add("--image-size", type=int, metavar="N", help=size)
    add("--templates", default="imagenet80", help="a shipped list of prompts, or a text file")
    add_overrides(parser, "method.regions.eps=0.8")
    crop = "only the N × N centre crop, as benchmarks see it"
    add("--crop", action="store_true", help=crop)
    most = "the largest picture that is read (default: 178956970)"
    add("--max-pixels", type=int, metavar="N", help=most)
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def read_words(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The classes and the background words, [] where there are none. Raises UserError for lists
    that do not fit together."""
    classes = _words(args.classes, "--classes", args.classes_file, unique=True)
    background = _words(args.background, "--background", args.background_file, unique=False)
    owned, shared = ([entry.split(SEPARATOR) for entry in each] for each in (classes, background))
    check_labels(owned, background, "the classes")
    check_apart(owned, shared, args.background_file or "--background")
    return classes, background


def check_settings(args: argparse.Namespace) -> int:
    """Raise UserError for a model, method, key or template that does not exist; the image size."""
    from cliptrase import config  # not for --help

    read_templates(template_path(args.templates))
    settings = args.model, args.method, args.device, args.image_size, args.overrides
    image_size = config.resolve_settings(config.picture_overrides(*settings)).image_size
    check_gpu(args.device)
    return image_size


def check_pictures(args: argparse.Namespace) -> list[tuple[int, int]]:
    """Width and height of each picture, upright. Raises UserError for one that cannot be read or is
    too long."""
    from cliptrase.data.read.crop import check_aspect
    from cliptrase.data.read.images import decoding, limit_pixels, read_image

    if args.max_pixels is not None:
        limit_pixels(args.max_pixels)
    for image in args.images:
        with decoding(str(image)), open(image, "rb"):
            pass  # before any is decoded
    sizes = []
    for image in args.images:
        picture = read_image(image)
        check_aspect(picture.size, str(image), whole=not args.crop)
        sizes.append(picture.size)
    return sizes


def segmenter_of(
    args: argparse.Namespace, classes: Sequence[str], background: Sequence[str]
) -> "Segmenter":
    """The Segmenter that the options ask for; torch and the model are loaded."""
    import cliptrase.model.lean  # noqa: F401
    from cliptrase.segmenter import Segmenter  # torch: seconds, after what fails quickly

    return Segmenter(
        args.model,
        method=args.method,
        classes=classes or None,
        background=background or None,
        image_size=args.image_size,
        device=args.device,
        templates=args.templates,
        crop=args.crop,
        overrides=args.overrides,
    )


def _words(listed: str | None, option: str, file: str | None, *, unique: bool) -> list[str]:
    """The entries of the option or of its file (then verbatim); none of both: []."""
    if file is not None:
        entries = read_names(file)
        split_classes(entries, file, unique=unique)
        return entries
    if listed is None:
        return []
    parts = listed.split(",") if "," in listed else listed.strip().splitlines()  # of $(cat FILE)
    words = [SEPARATOR.join(name.strip() for name in word.split(SEPARATOR)) for word in parts]
    if not any(words):
        raise UserError(f'{option}: the list is empty; write at least one name, as "cat, sofa"')
    split_classes(words, option, unique=unique, entry="entry")
    return words
