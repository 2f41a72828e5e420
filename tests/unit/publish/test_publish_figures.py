"""Figures: charts of a table's lines, and pictures computed on a prepared dataset."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from tests.undrawn import only_names
from tests.unit.publish.reading import lines_of

from cliptrase import plan as planning
from cliptrase.data.make.recipes import recipe
from cliptrase.data.make.records import png
from cliptrase.data.read import prepared
from cliptrase.errors import UserError
from cliptrase.evaluate.truth import Loader
from cliptrase.plan import Plan
from cliptrase.publish import chart_names
from cliptrase.publish.figures import paper_figures, pictures, style
from cliptrase.publish.figures.attention import patch_classes, ranking, shown_patch
from cliptrase.publish.figures.charts import bars, heat_map
from cliptrase.publish.figures.command import draw_charts, main
from cliptrase.publish.figures.label_maps import Picture, label_maps
from cliptrase.publish.figures.paper_figures import FIGURES
from cliptrase.publish.figures.predicted import truth_map
from cliptrase.publish.figures.shown_runs import shown_runs
from cliptrase.publish.figures.style import SETTINGS, save
from cliptrase.publish.results import Shelf
from cliptrase.publish.tables.cells import to_frame

CHARTS = {"main_results", "fig1a_overview", "fig7_sensitivity"}
CHARTS |= {"table_discrepancies", "table_peers"}


def test_charts_are_the_same_bytes_and_hold_no_date(
    paper: Plan, whole_paper: Path, tmp_path: Path
) -> None:
    shown = ("table1_main", "fig7_sensitivity", "table_peers_slide")  # one of each kind
    part = replace(paper, tables={name: paper.tables[name] for name in shown})
    shelf = Shelf(part, whole_paper, tmp_path)
    with matplotlib.rc_context(SETTINGS):
        paths = draw_charts(part, shelf, tmp_path / "a")
        again = draw_charts(part, shelf, tmp_path / "b")
    assert {path.stem for path in paths} == set(chart_names(part))
    kinds = sorted(path.suffix for path in paths)
    assert kinds == [".npz"] + [".png"] * 4 + [".svg"] * 4
    for one, other in zip(paths, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
        if one.suffix == ".svg":
            assert "<dc:date>" not in one.read_text()
        elif one.suffix == ".png":
            with Image.open(one) as image:
                assert image.width > 700 and "Software" not in image.info


def test_a_table_without_a_run_has_no_chart(paper: Plan, tmp_path: Path) -> None:
    """One of quoted rows alone, and one of a role without benchmarks."""
    table, grid = paper.tables["table1_main"], paper.tables["fig7_sensitivity"]
    quoted = tuple(row for row in table.rows if row.kind == "quoted")
    empty = tuple(replace(row, cells=()) for row in grid.rows)
    tables = {
        "quoted": replace(table, name="quoted", rows=quoted),
        "grid": replace(grid, name="grid", benchmarks=(), rows=empty),
    }
    part = replace(paper, tables=tables)
    assert chart_names(part) == []
    assert draw_charts(part, Shelf(part, tmp_path, tmp_path), tmp_path) == []
    with pytest.raises(UserError, match="nothing to picture"):
        shown_runs(part)


def test_the_heat_map_shows_every_cell_and_frames_the_chosen_one(
    paper: Plan, whole_paper: Path
) -> None:
    lines = lines_of(paper, whole_paper, "fig7_sensitivity")
    figure = heat_map("Figure 7", to_frame(lines))
    axes = figure.axes[0]
    shown = {
        (round(text.get_position()[1]), round(text.get_position()[0])): text
        for text in axes.texts
        if text.get_text().replace(".", "").isdigit()
    }
    assert len(shown) == 64
    eps, samples = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1], [2, 3, 4, 5, 6, 7, 8, 10]
    for line in lines[:-1]:
        (row_eps, row_samples) = (part.split("=")[1] for part in line.row.split())
        place = (eps.index(float(row_eps)), samples.index(int(row_samples)))
        assert shown[place].get_text() == f"{line.value:.1f}"
    (frame,) = [patch for patch in axes.patches if patch.get_linewidth() > 1]
    assert frame.get_xy() == (samples.index(3) - 0.5, eps.index(0.7) - 0.5)
    best = lines[-1]
    bold = [text for text in shown.values() if text.get_fontweight() == "bold"]
    assert {text.get_text() for text in bold} == {f"{best.value:.1f}"}


def test_charts_of_missing_runs_are_drawn_with_gaps(paper: Plan, tmp_path: Path) -> None:
    figure = heat_map("Figure 7", to_frame(lines_of(paper, tmp_path, "fig7_sensitivity")))
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 64
    figure = bars("Table 1", to_frame(lines_of(paper, tmp_path, "table1_main")))
    assert not figure.axes[0].containers
    save(figure, tmp_path, "bars")


def test_bars_stand_at_the_values_with_their_intervals(paper: Plan, whole_paper: Path) -> None:
    lines = lines_of(paper, whole_paper, "table1_main")
    figure = bars("Table 1", to_frame(lines))
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["CLIP", "SCLIP", "CLIPtrase", "paper"]
    groups = [group for axes in figure.axes for group in axes.containers[1::2]]
    heights = sorted(bar.get_height() for group in groups for bar in group)
    values = sorted(line.value for line in lines if line.kind in ("run", "avg"))
    assert heights == pytest.approx(values)
    assert [tick.get_text() for tick in figure.axes[-1].get_xticklabels()][-1] == "avg"


def test_label_maps_show_shares_and_only_the_classes_there() -> None:
    truth = np.zeros((10, 10), np.int64)
    truth[:, 5:] = 2
    truth[0] = -1
    wrong = np.where(truth == 2, 1, truth).clip(0)
    picture = Picture(
        np.zeros((10, 10, 3), np.uint8), truth, {"CLIP": wrong, "ours": truth.clip(0)}
    )
    figure = label_maps([picture], ["cat", "sofa", "background"], 2, "two methods")
    below = [axes.get_xlabel() for axes in figure.axes]
    assert below == ["", "", "50 % of pixels right", "100 % of pixels right"]
    assert [axes.get_title() for axes in figure.axes] == ["image", "ground truth", "CLIP", "ours"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["cat", "sofa", "background"]


def test_ranking_is_the_area_under_the_roc_curve() -> None:
    rng = np.random.default_rng(3)
    classes = np.array([0, 0, 1, 1, 1, 2, -1, 0])
    weights = np.round(rng.random((8, 8)), 1)  # rounded: with ties
    expected = []
    for i in range(8):
        others = [j for j in range(8) if j != i and classes[j] >= 0]
        same = [classes[j] == classes[i] for j in others]
        if classes[i] >= 0 and any(same) and not all(same):
            expected.append(roc_auc_score(same, weights[i, others]))
    assert len(expected) == 6
    assert ranking(weights, classes) == pytest.approx(expected)
    assert ranking(weights, np.full(8, -1)).size == 0


def test_patch_classes_need_most_of_the_patch() -> None:
    truth = np.full((4, 4), 7)
    truth[:2, :2] = [[3, 3], [3, 7]]  # three quarters
    truth[:2, 2:] = [[5, 5], [6, 6]]  # half and half
    truth[2:, :2] = -1
    assert patch_classes(truth, 2).tolist() == [3, -1, -1, 7]


def test_the_shown_patch_is_in_the_middle_of_the_smallest_class() -> None:
    classes = np.zeros((10, 10), np.int64)
    classes[1:4, 6:9] = 4
    classes[8, 8] = 5  # too small to show
    assert shown_patch(classes.ravel()) == 2 * 10 + 7
    assert shown_patch(np.full(100, -1)) is None


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the first three scenes of `shapes`, prepared as the command does."""
    from cliptrase.shapes.scenes import evaluation_scene

    root = tmp_path_factory.mktemp("data")
    folder = prepared.prepared_folder("shapes", root)
    folder.mkdir(parents=True)
    made = (evaluation_scene("shapes", index) for index in range(3))
    prepared.write_arrow(
        folder / prepared.ARROW,
        (prepared.Record(f"{i:03d}", png(one.image), png(one.label)) for i, one in enumerate(made)),
    )
    check = prepared.self_check(prepared.PreparedSamples(folder))
    check["recipe_sha256"] = recipe("shapes").digest()
    check["arrow_bytes"] = (folder / prepared.ARROW).stat().st_size
    (folder / "selfcheck.json").write_text(json.dumps(check))
    return root


def test_truth_map_is_the_label_as_scored(shapes: Plan, data: Path) -> None:
    run = shown_runs(shapes)[1].first
    samples = prepared.open_prepared("shapes", data)
    loader = Loader.of(samples, [run])
    truth = truth_map(loader(1), run)
    assert truth.shape == (336, 336) and truth.min() >= 0
    table = np.genfromtxt(
        Path(prepared.__file__).parents[1] / "labels" / "shapes_to_all.csv",
        delimiter=",", names=True, dtype=int,
    )  # fmt: skip
    lookup = dict(zip(table["raw"].tolist(), table["class"].tolist(), strict=True))
    raw = samples[1].label
    assert truth[100, 200] == lookup[int(raw[100 * 224 // 336, 200 * 224 // 336])]


def test_the_command_draws_charts_and_pictures(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Shelf, "refuse_none", lambda shelf: None)  # what they show is no matter
    for module in (style, pictures, paper_figures):
        monkeypatch.setattr(module, "save", only_names)  # tests/workflow has them drawn
    main(["smoke", "--results", str(tmp_path), "--data", str(data)])
    made = {path.name for path in (tmp_path / "smoke" / "figures").glob("[a-z]*")}
    names = {*CHARTS, "label_maps", "correlation", *FIGURES}
    files = {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    files |= {f"{name}.npz" for name in [*FIGURES, "fig1a_overview"]}
    assert made == files
    assert len(capsys.readouterr().out.splitlines()) == len(files)


def test_without_a_prepared_dataset_charts_are_drawn_and_it_says_why(
    whole_paper: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(style, "save", only_names)
    (tmp_path / "runs").symlink_to(whole_paper / "runs")
    main(["paper", "--results", str(tmp_path), "--data", str(tmp_path)])
    made = {path.name for path in (tmp_path / "paper" / "figures").glob("[a-z]*")}
    assert {name.partition(".")[0] for name in made} == CHARTS | {"table_peers_slide", "certainty"}
    assert set(chart_names(planning.load("paper"))) == CHARTS | {"table_peers_slide", "certainty"}
    assert "no pictures" in caplog.text and "coco" in caplog.text
