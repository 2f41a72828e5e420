"""`cliptrase segment`: pictures and words in; label maps, overlays and shares out."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliptrase.cli.outputs import plan_outputs, write_together
from cliptrase.data.read.vocabularies import SEPARATOR, read_names, split_classes
from cliptrase.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from cliptrase.segmenter import Segmentation, Segmenter

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
            print(_shares_as_text(image, segmentation))
        contents = {}
        for option, file in files.items():
            if option == "--labels":
                contents[file] = labels_png(segmentation.labels, len(segmentation.names))
            elif option == "--overlay":
                contents[file] = _overlay(file, segmenter.seen(picture), segmentation)
            else:
                contents[file] = _report(image, segmenter, segmentation)
        write_together(contents)
        for file in files.values():
            print(f"wrote {file}")


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


def labels_png(labels: Any, names: int) -> bytes:
    """(H, W) uint16 labels as a grey PNG whose values are the labels: 16 bit over 255 names."""
    from PIL import Image

    kind = "uint8" if names <= 255 else "uint16"
    file = io.BytesIO()
    Image.fromarray(labels.astype(kind)).save(file, "PNG", optimize=False)
    return file.getvalue()


def _overlay(path: Path, seen: Image.Image, segmentation: Segmentation) -> bytes:
    from PIL import Image

    from cliptrase.cli.overlay import paint

    file = io.BytesIO()
    page = paint(seen, segmentation.labels, segmentation.names, segmentation.background)
    page.save(file, Image.registered_extensions()[path.suffix.lower()])
    return file.getvalue()


def _report(image: Path, segmenter: Segmenter, segmentation: Segmentation) -> bytes:
    height, width = segmentation.labels.shape
    report = {
        "image": str(image),
        "width": width,
        "height": height,
        "model": segmenter.model.label,
        "precision": segmenter.model.precision,
        "weights_sha256": segmenter.model.weights_sha256,
        "method": segmentation.method.model_dump(mode="json"),
        "crop": segmenter.crop,
        "image_size": segmenter.image_size,
        "network_width": segmentation.network_size[1],
        "network_height": segmentation.network_size[0],
        "background": segmentation.background,
        "classes": [
            {"index": index, "name": name, "pixels": pixels, "share": pixels / (height * width)}
            for index, (name, pixels) in enumerate(_pixels(segmentation))
        ],
        "regions": _regions(segmentation),
    }
    return (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode()


def _regions(segmentation: Segmentation) -> list[dict[str, Any]]:
    """Every region that occurs: its number, size, and the class that most of its pixels have."""
    import numpy as np

    listed = []
    for index in np.unique(segmentation.regions[segmentation.regions >= 0]):
        inside = segmentation.labels[segmentation.regions == index]
        name = segmentation.names[np.bincount(inside).argmax()]
        share = inside.size / segmentation.labels.size
        size = {"pixels": inside.size, "share": share}
        listed.append({"index": int(index), "name": name} | size)
    return listed


def _pixels(segmentation: Segmentation) -> Sequence[tuple[str, int]]:
    """The number of pixels of each name, in the order of the labels."""
    import numpy as np

    counts = np.bincount(segmentation.labels.ravel(), minlength=len(segmentation.names))
    return list(zip(segmentation.names, counts.tolist(), strict=True))


def _shares_as_text(image: Path, segmentation: Segmentation) -> str:
    """The picture's size and the share of each class, largest first."""
    height, width = segmentation.labels.shape
    pixels = sorted(_pixels(segmentation), key=lambda pair: -pair[1])
    wide = max(len(name) for name, _ in pixels)
    lines = [f"{image}: {width} × {height}"]
    lines += [f"  {name:<{wide}}  {100 * n / (width * height):5.1f} %" for name, n in pixels]
    return "\n".join(lines)
