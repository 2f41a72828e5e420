"""`cliptrase explain`: the paper's figures of anyone's pictures, and what they say in words."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cliptrase.cli import pictures
from cliptrase.errors import UserError, nearest, printable
from cliptrase.files import atomic_write, check_writable, local_path

HELP = "draw how a method sees pictures: attention, correlation, clusters, denoising, votes"

EPILOG = """\
DIR gets each figure as .svg, .png and .npz (its numbers), and explanation.txt. Words are needed for
label maps only. Figures, as docs/figures.md explains them: 2, 4, 5, 6, 10 (these are all), and 1b
and 9, which show of pictures of your own what 4 does.

examples:
  cliptrase explain photo.jpg --classes "cat, sofa, wall" --out why
  cliptrase explain photo.jpg --figures 2,4 --at 310,120 --blocks 6,9,12 --out why
  cliptrase explain *.png --model shapes_clip --figures 4 --after attention --out why
"""
OF_BLOCKS = "fig2_global_patches"
REPEATED = ("fig1b_heatmaps", "fig9")  # of the same pictures what Figure 4 shows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EPILOG
    pictures.add_words(parser, required=False)
    add = parser.add_argument
    add("--out", required=True, type=local_path, metavar="DIR", help="the folder that is written")
    add("--figures", default="all", metavar="2,4", help="which figures (default: all)")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--patch", metavar="R,C", help="row and column of the patch, from 0")
    place.add_argument("--at", metavar="X,Y", help="or a pixel of the picture that it holds")
    add("--blocks", metavar="9,11", help="of Figure 2, counted as in a 12-block model")
    after = "what Figures 1b, 4 and 9 show beside the attention"
    add("--after", choices=("correlation", "attention"), default="correlation", help=after)
    pictures.add_settings(parser)


def run(args: argparse.Namespace) -> None:
    """Check all that was given, then load the model, compute every picture, and write the figures.

    Raises UserError before anything is written.
    """
    classes, background = pictures.read_words(args)
    patch, at = _pair(args.patch, "--patch", "R,C"), _pair(args.at, "--at", "X,Y")
    blocks = None
    if args.blocks is not None:
        blocks = list(dict.fromkeys(_numbers(args.blocks, "--blocks")))
    from cliptrase.publish import PAPER_FIGURES  # pydantic: not for --help

    figures = _figures(args.figures, PAPER_FIGURES)
    if blocks and OF_BLOCKS not in figures:
        raise UserError(
            f"--blocks {args.blocks}: is of Figure 2, which --figures {args.figures} leaves out"
        )
    folder = Path(args.out)
    check_writable(folder / "explanation.txt")
    pictures.check_settings(args)
    pictures.check_pictures(args)
    import matplotlib  # with pandas and SciPy a second: after what fails quickly

    from cliptrase.publish.figures import paper_figures
    from cliptrase.publish.figures.explanation import explanation
    from cliptrase.publish.figures.parts import Wanted
    from cliptrase.publish.figures.style import SETTINGS

    segmenter = pictures.segmenter_of(args, classes, background)
    depth = segmenter.depth
    for block in blocks or []:
        if not 13 - depth <= block <= 12:
            raise UserError(
                f"--blocks {block}: does not exist in a model of {depth} blocks: they are counted "
                f"as in a 12-block model from the end, here {13 - depth} … 12"
            )
    seen = []
    for image in args.images:
        try:
            seen.append(segmenter.explain(image, image.stem, patch=patch, at=at))
        except UserError as error:
            told = str(image) in str(error)
            raise UserError(str(error) if told else f"{image}: {error}") from error
    made = all(each.clusters is not None for each in seen)
    if not made:
        of_clusters = [name for name in figures if paper_figures.FIGURES[name].clusters]
        if of_clusters and args.figures != "all":
            raise UserError(
                f"--figures {args.figures}: method {args.method} makes no clusters, which "
                f"{', '.join(of_clusters)} would show; take another method or other figures"
            )
    size = segmenter.image_size
    wanted = Wanted(
        f"{segmenter.model.label} · {args.method} · {size} px",
        tuple(blocks or paper_figures.shown_blocks(depth)),
        args.after,
    )
    text = "\n".join(map(explanation, seen)) + "\n"
    with matplotlib.rc_context(SETTINGS):
        paths = paper_figures.draw(figures, seen, wanted, folder)
    with atomic_write(folder / "explanation.txt") as file:
        file.write(text.encode(errors="backslashreplace"))
    print(printable(text), end="")
    if not classes:
        print("no words were given (--classes): figures have no label maps")
    if not made:
        print(f"method {args.method} makes no clusters: there are no Figures 5 and 10")
    for path in [*paths, folder / "explanation.txt"]:
        print(printable(f"wrote {path}"))


def _figures(listed: str, names: Sequence[str]) -> list[str]:
    """The figures that are asked for, by number or by name. Raises UserError for none of them."""
    by_number = {name.removeprefix("fig").split("_")[0]: name for name in names}
    chosen = list[str]()
    for part in (part.strip() for part in listed.split(",")):
        name = by_number.get(part.removeprefix("fig"), part)
        if part != "all" and name not in names:
            choices = [*by_number, *names, "all"]
            raise UserError(f"--figures {part!r}: no such figure. {nearest(part, choices)}")
        chosen += [each for each in names if each not in REPEATED] if part == "all" else [name]
    return list(dict.fromkeys(chosen))


def _numbers(listed: str, option: str) -> list[int]:
    try:
        return [int(part) for part in listed.split(",")]
    except ValueError:
        raise UserError(f"{option} {listed!r}: write whole numbers, as 9,11") from None


def _pair(listed: str | None, option: str, shape: str) -> tuple[int, int] | None:
    if listed is None:
        return None
    numbers = _numbers(listed, option)
    if len(numbers) != 2:
        raise UserError(f"{option} {listed!r}: write two whole numbers, {shape}")
    return numbers[0], numbers[1]
