"""`cliptrase score PREDICTIONS`: label maps of any code become a run, scored like any other."""

import argparse
import re

from cliptrase.cli.overrides import add_overrides
from cliptrase.files import local_path

HELP = "score label maps that any code predicted: a folder named by image id, or an npz"

EPILOG = """\
PREDICTIONS is a folder of PNG (8 or 16 bits, grey or palette), TIFF or npy files, each named by the
id of its image, or an npz of arrays named so. Protocol crop scores the centre crop at image_size,
with the background after the classes; protocol slide scores whole pictures, with the background
before them.

examples:
  cliptrase score exports/voc --benchmark voc21 --protocol slide
  cliptrase score maps.npz --benchmark shapes_bg --image-size 336
  cliptrase score exports --benchmark folder --protocol slide --set benchmark.images=photos \\
      benchmark.labels=masks benchmark.classes=words.txt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EPILOG
    add = parser.add_argument
    add("predictions", type=local_path, metavar="PREDICTIONS", help="a folder, or an npz")
    add("--benchmark", required=True, metavar="NAME", help="a name of `cliptrase list benchmarks`")
    add("--protocol", default="crop", help="crop (default) or slide")
    add("--image-size", type=int, default=224, metavar="N", help="side of the crop (224)")
    add_overrides(parser, "protocol.rule=mmseg")
    add("--json", action="store_true", help="the outcome as JSON")


def run(args: argparse.Namespace) -> None:
    """Make the run and print its scores. Raises UserError naming a file that cannot be scored."""
    from cliptrase.evaluate.__main__ import evaluate  # Hydra: not for --help

    evaluate(overrides(args), multirun=False, as_json=args.json)


def overrides(args: argparse.Namespace) -> list[str]:
    """The overrides that the options stand for."""
    path, plain = args.predictions, re.fullmatch(r"[\w./-]+", args.predictions)
    mark = "" if plain else '"' if "'" in path else "'"  # as Hydra reads it
    return [
        f"benchmark={args.benchmark}",
        "method=predictions",
        f"method.path={mark}{path}{mark}",
        f"protocol={args.protocol}",
        f"image_size={args.image_size}",
        *args.overrides,
    ]
