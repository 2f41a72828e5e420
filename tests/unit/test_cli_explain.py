"""`cliptrase explain`: its numbers are the suite's, its words agree with its numbers."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.few_scenes import write_scenes

from cliptrase.cli import main
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.model.load import load_clip
from cliptrase.publish import paper_figures
from cliptrase.publish import pictures as suite_pictures
from cliptrase.publish.paper_figures import FIGURES
from cliptrase.shapes.scenes import evaluation_scene

SCENES = (3, 8)
WORDS = ["zebra", "ladybug", "strawberry", "banana", "basketball", "grass", "brick"]
COMMON = ["--model", "shapes_clip", "--templates", "shapes"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes of `shapes` as PNG files, which lose nothing."""
    folder = tmp_path_factory.mktemp("scenes")
    paths = [folder / f"scene_{index}.png" for index in SCENES]
    for index, path in zip(SCENES, paths, strict=True):
        Image.fromarray(np.asarray(evaluation_scene("shapes", index).image)).save(path)
    return paths


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made and not written as svg and png, which takes seconds; their numbers are."""
    monkeypatch.setattr(paper_figures, "save", lambda figure, folder, name: [])


def run(*arguments):
    main(["explain", *map(str, arguments), *COMMON])


def numbers(path):
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def of_suite(smoke, tmp_path_factory):
    """What the first benchmark of a suite has: the run, and the numbers of its figures."""
    data = write_scenes(tmp_path_factory.mktemp("data"), SCENES)
    folder = tmp_path_factory.mktemp("suite")
    shown = suite_pictures.shown_runs(smoke)[0]
    clip = load_clip(shown.first.model, torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch, single_threaded_pool(1):
        patch.setattr(paper_figures, "save", lambda figure, folder, name: [])
        suite_pictures._draw_paper_figures(clip, shown, folder, data)
        maps = [
            suite_pictures.predict(clip, shown, shown.loader(data), place, data).maps
            for place in range(len(SCENES))
        ]
    return shown, {name: numbers(folder / f"{name}.npz") for name in FIGURES}, maps


def test_a_suites_label_maps_are_those_of_its_rows(of_suite):
    """By the protocol that passes use; with words for the background."""
    _, figures, maps = of_suite
    for place, rows in enumerate(maps):
        assert np.array_equal(figures["fig10_denoising"][f"{place}_final"], rows["CLIPtrase"])
    assert np.array_equal(figures["fig2_global_patches"]["0_plain"], maps[0]["CLIP"])
    assert np.array_equal(figures["fig2_global_patches"]["0_final"], maps[0]["CLIPtrase"])


@pytest.mark.parametrize("place", range(len(SCENES)))
def test_explain_has_the_numbers_of_the_suite(place, scenes, of_suite, undrawn, tmp_path, capsys):
    """Array for array, but for the name: the model sees the same crop of a lossless picture."""
    shown, expected, _ = of_suite
    clustered = shown.clustered
    vocabulary = clustered.vocabulary
    patch = int(expected["fig9"][f"{place}_patch"])
    lists = ["--classes-file", vocabulary.classes.path]
    lists += ["--background-file", vocabulary.background.path]
    row, column = divmod(patch, int(expected["fig9"][f"{place}_grid"][1]))
    run(
        *(scenes[place], *lists, "--crop", "--image-size", clustered.image_size),
        *("--patch", f"{row},{column}", "--figures", ",".join(FIGURES), "--out", tmp_path),
    )
    for name in FIGURES:
        if FIGURES[name].of_each and place:
            continue  # a suite's is of its first picture
        mine = numbers(tmp_path / f"{name}.npz")
        theirs = {
            key.replace(f"{place}_", "0_", 1): value
            for key, value in expected[name].items()
            if key.startswith(f"{place}_")
        }
        assert mine.keys() == theirs.keys()
        assert mine.pop("0_name") == scenes[place].stem
        for key, values in mine.items():
            assert values.dtype == theirs[key].dtype, (name, key)
            assert np.array_equal(values, theirs[key]), (name, key)
