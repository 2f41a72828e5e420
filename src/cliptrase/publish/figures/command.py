"""Draws the figures of a suite (svg and png) from the runs that exist. Starts no run.

`python -m cliptrase.publish figures SUITE`, or `cliptrase figures SUITE`. Charts are always drawn,
with gaps where runs are missing; pictures only where their dataset is prepared. With --label-maps
only a picture is drawn, and no run is needed.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from cliptrase import plan
from cliptrase.errors import UserError, exit_on_user_error, start_log
from cliptrase.machine import positive
from cliptrase.plan import Plan
from cliptrase.publish import (
    CERTAINTY,
    MAIN_RESULTS,
    OVERVIEW,
    certainty_table,
    check_pictured,
    has_overview,
    has_runs,
    main_table,
)
from cliptrase.publish.command_line import add_places, command_line
from cliptrase.publish.digests import remember
from cliptrase.publish.results import Shelf

log = logging.getLogger(__name__)
MOST_PICTURES = 40  # with their label maps in one figure: what a PNG can hold


def draw_charts(suite: Plan, shelf: Shelf, folder: Path) -> list[Path]:
    """A heat map of every grid and the rows of every table that asks, named as their tables; the
    bars of the first table of metrics, and Figure 1a of two of its rows; how far logits can be
    trusted, where a table says so."""
    from cliptrase.publish.figures.certainty import certainty
    from cliptrase.publish.figures.charts import bars, heat_map, row_bars
    from cliptrase.publish.figures.overview import overview, overview_numbers
    from cliptrase.publish.figures.style import save
    from cliptrase.publish.tables.cells import tidy

    paths: list[Path] = []
    tables = {name: table for name, table in suite.tables.items() if has_runs(table)}
    first = main_table(suite)
    for name, table in tables.items():
        charts = {name: heat_map} if table.kind == "grid" else {}
        charts |= {MAIN_RESULTS: bars} if table is first else {}
        charts |= {name: row_bars} if table.figure else {}
        frame = tidy(suite, shelf, table) if charts else None
        for chart, draw in charts.items():
            paths += save(draw(table.title, frame), folder, chart)
        if table is first and has_overview(suite):
            paths += save(overview(frame), folder, OVERVIEW, overview_numbers(frame))
    if (trusted := certainty_table(suite)) is not None:
        title = "Reliability of confidences, and risk at each coverage"
        figure = certainty(title, tidy(suite, shelf, trusted), shelf)
        paths += save(figure, folder, CERTAINTY)
    return paths


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `cliptrase figures`."""
    add_places(parser)
    only = "draw label maps of this benchmark, and nothing else"
    parser.add_argument("--label-maps", metavar="BENCHMARK", help=only)
    first = "with --label-maps: of which table (the first that has the benchmark)"
    parser.add_argument("--table", metavar="NAME", help=first)
    every = "with --label-maps: only this row; repeats (all that see what the first sees)"
    parser.add_argument("--row", action="append", metavar="NAME", help=every)
    count = f"with --label-maps: of the first N images (4; at most {MOST_PICTURES})"
    parser.add_argument("--pictures", type=positive, metavar="N", help=count)


def _label_maps(suite: Plan, args: argparse.Namespace, folder: Path, data: Path) -> list[Path]:
    """Draw what --label-maps asks for. Raises UserError for a name that is not there."""
    if args.label_maps is None:
        raise UserError("--table, --row and --pictures need --label-maps BENCHMARK")
    if args.pictures and args.pictures > MOST_PICTURES:
        raise UserError(
            f"--pictures {args.pictures}: one figure has at most {MOST_PICTURES}; keep label maps "
            "of more with save_maps=N"
        )
    check_pictured(suite, args.label_maps, args.table)
    import matplotlib

    import cliptrase.model.lean  # noqa: F401
    from cliptrase.publish.figures.pictures import draw_label_maps
    from cliptrase.publish.figures.shown_runs import chosen_runs
    from cliptrase.publish.figures.style import SETTINGS

    shown = chosen_runs(suite, args.label_maps, args.table, args.row or ())
    name = "_".join(filter(None, ("label_maps", args.table, args.label_maps)))
    with matplotlib.rc_context(SETTINGS):
        return draw_label_maps(shown, folder, data, name, args.pictures)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figures of a suite; a picture that cannot be drawn is a warning."""
    args = command_line("figures", __doc__, add_options).parse_args(arguments)
    start_log("warning: %(message)s")
    suite = plan.load(args.suite)
    folder, data = args.results / suite.suite / "figures", args.data or Path(suite.data)
    if args.label_maps is not None or args.table or args.row or args.pictures:
        sys.stdout.write("".join(f"{path}\n" for path in _label_maps(suite, args, folder, data)))
        return
    shelf = Shelf(suite, args.results, data)
    shelf.refuse_none()
    import matplotlib  # a second, with pandas: after what fails quickly

    from cliptrase.publish.figures.style import SETTINGS

    with matplotlib.rc_context(SETTINGS):
        paths = draw_charts(suite, shelf, folder)
        try:
            import cliptrase.model.lean  # noqa: F401
            from cliptrase.publish.figures.pictures import draw_pictures  # torch: only for these

            paths += draw_pictures(suite, folder, data)
        except UserError as error:
            log.warning("no pictures: %s", error)
    remember(folder, paths)
    sys.stdout.write("".join(f"{path}\n" for path in paths))
