"""The commands on suites and datasets: unknown names say what exists; nothing is written."""

import json

import numpy as np
import pytest

from cliptrase.cli import main
from cliptrase.data.make.records import png
from cliptrase.data.read import prepared


def refused(capsys, tmp_path, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code in (1, 2) and not printed.out
    assert printed.err.splitlines()[-1].startswith("error: ") or ended.value.code == 2
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    return printed.err


@pytest.mark.parametrize("command", ["plan", "tables", "figures", "publish"])
def test_an_unknown_suite(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, tmp_path, [command, "shape"])
    assert "suite 'shape'" in line and "did you mean 'shapes'" in line


@pytest.mark.parametrize("command", ["tables", "figures", "publish"])
@pytest.mark.parametrize("suite", ["smoke", "paper"])
def test_a_suite_without_one_run_shows_nothing(command, suite, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, tmp_path, [command, suite])
    assert f"results/runs: no run of suite {suite} to show" in line
    assert f"`snakemake --cores 8 all --config suite={suite}`" in line


def test_why_there_is_no_run_is_said(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, tmp_path, ["tables", "paper", "--benchmarks", "ade847"])
    assert "dataset ade2021 is not prepared" in line and "ade20k" in line.lower()


def test_an_unknown_dataset(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, tmp_path, ["prepare", "shape"])
    assert "dataset 'shape'" in line and "did you mean 'shapes'" in line


def test_verify_without_a_dataset_names_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["verify"])
    assert "make one with `cliptrase prepare shapes`" in capsys.readouterr().out
    assert "not prepared; run `cliptrase prepare shapes" in refused(
        capsys, tmp_path, ["verify", "shapes"]
    )


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Two small prepared datasets, `toy` and `other`, in the current folder's data/prepared."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 9, (8, 8), dtype=np.uint8)
    for name in ("toy", "other"):
        folder = prepared.prepared_folder(name, "data")
        folder.mkdir(parents=True)
        records = [
            prepared.Record(f"{i}", png(np.dstack([pixels] * 3)), png(pixels)) for i in (1, 2)
        ]
        prepared.write_arrow(folder / prepared.ARROW, records)
        check = prepared.self_check(prepared.PreparedSamples(folder))
        check["arrow_bytes"] = (folder / prepared.ARROW).stat().st_size
        (folder / "selfcheck.json").write_text(json.dumps(check))
    return tmp_path / "data" / "prepared"


def test_verify_lists_what_is_whole(toys, capsys):
    main(["verify", "other", "toy"])
    lines = "other: complete, 2 samples\ntoy: complete, 2 samples\n"
    assert capsys.readouterr().out == lines
    main(["verify"])
    assert lines in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["cut off", "content has changed", "not prepared"])
def test_verify_looks_at_every_dataset_and_ends_in_what_is_wrong(fault, toys, capsys):
    arrow = toys / "other" / prepared.ARROW
    match fault:
        case "cut off":
            arrow.write_bytes(arrow.read_bytes()[:-100])
        case "content has changed":
            check = json.loads((toys / "other" / "selfcheck.json").read_text())
            check["label_pixels"]["0"] += 1
            (toys / "other" / "selfcheck.json").write_text(json.dumps(check))
        case "not prepared":
            (toys / "other" / "selfcheck.json").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["verify"])
    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert "toy: complete, 2 samples\n" in printed.out and "other" not in printed.out
    assert printed.err.count("\n") == 1 and fault in printed.err
    assert "run `cliptrase prepare other" in printed.err
