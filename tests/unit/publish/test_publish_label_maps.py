"""Label maps of any benchmark, table and rows of a suite."""

from pathlib import Path

import pytest
from tests.few_scenes import write_scenes

from cliptrase.errors import UserError
from cliptrase.plan import Plan
from cliptrase.publish.figures.command import main
from cliptrase.publish.figures.pictures import draw_label_maps
from cliptrase.publish.figures.shown_runs import chosen_runs, shown_runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data"), range(3))


def test_the_rows_of_any_table_can_be_pictured(shapes: Plan) -> None:
    for shown in shown_runs(shapes):
        assert chosen_runs(shapes, shown.benchmark) == shown
    sam = chosen_runs(shapes, "shapes_fine", "table3_sam", ["SCR+D+SAM", "CLIP"])
    methods = {row: run.method.name for row, run in sam.runs.items()}
    assert methods == {"SCR+D+SAM": "cliptrase_sam", "CLIP": "clip"}
    assert {run.benchmark.name for run in sam.runs.values()} == {"shapes_fine"}
    slide = chosen_runs(shapes, "shapes", "table_peers_slide").runs
    assert {run.protocol.name for run in slide.values()} == {"slide"} and len(slide) == 18
    sizes = chosen_runs(shapes, "shapes", "table2_ablation").runs
    assert "224" in sizes and "336" not in sizes, "the first row is of 224 pixels"
    assert [*chosen_runs(shapes, "shapes", "table2_ablation", ["336"]).runs] == ["336"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("shape",), "has no benchmark 'shape'; did you mean 'shapes'"),
        (("shapes", "table3"), "no table 'table3' to picture; did you mean 'table3_sam'"),
        (("shapes", "fig7_sensitivity"), "no table 'fig7_sensitivity' to picture; There is"),
        (("shapes_bg", "table8_unsupervised"), "shapes_bg: no run on it .* in table8_unsup"),
        (("shapes", None, ["SCLIb"]), "no row 'SCLIb' to picture on shapes; did you mean 'SCLIP'"),
        (("shapes", "table2_ablation", ["224", "336"]), "rows '224' and '336' do not see the same"),
    ],
)
def test_what_cannot_be_pictured_is_said(words: tuple, message: str, shapes: Plan) -> None:
    with pytest.raises(UserError, match=message):
        chosen_runs(shapes, *words)


def test_label_maps_of_a_benchmark_need_no_run_and_leave_the_suite_s_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shapes: Plan
) -> None:
    words = ["shapes", "--results", str(tmp_path), "--data", str(data)]
    rows = ["--table", "table6_metrics_224", "--row", "SCLIP"]
    main([*words, "--label-maps", "shapes_fine", *rows, "--pictures", "9"])
    folder = tmp_path / "shapes" / "figures"
    made = {path.name for path in folder.iterdir()}
    name = "label_maps_table6_metrics_224_shapes_fine"
    assert made == {f"{name}.svg", f"{name}.png"}
    assert capsys.readouterr().out == f"{folder / name}.svg\n{folder / name}.png\n"
    text = (folder / f"{name}.svg").read_text()
    assert "SCLIP" in text and "CLIPtrase" not in text and text.count("% of pixels right") == 3
    with pytest.raises(SystemExit):
        main([*words, *rows])
    assert "need --label-maps BENCHMARK" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--label-maps", "shapes_fine", "--pictures", "41"])
    assert "--pictures 41: one figure has at most 40" in capsys.readouterr().err
    draw_label_maps(chosen_runs(shapes, "shapes"), folder, data, "some", 1)
    assert (folder / "some.svg").read_text().count("% of pixels right") == 3
