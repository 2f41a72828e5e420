"""`cliptrase explain`: its numbers are the suite's, its words agree with its numbers."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tests.few_scenes import write_scenes
from tests.undrawn import only_numbers

from cliptrase.cli import main
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.model.load import load_clip
from cliptrase.publish.figures import paper_figures
from cliptrase.publish.figures import pictures as suite_pictures
from cliptrase.publish.figures.paper_figures import FIGURES
from cliptrase.segmenter import Segmenter
from cliptrase.shapes.scenes import evaluation_scene

SCENES = (3, 8)
WORDS = ["zebra", "ladybug", "strawberry", "banana", "basketball", "grass", "brick"]
FIG_2, FIG_10 = "fig2_global_patches", "fig10_denoising"
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
    monkeypatch.setattr(paper_figures, "save", only_numbers)


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
        patch.setattr(paper_figures, "save", only_numbers)
        suite_pictures._draw_paper_figures(clip, shown, folder, data)
        loader, jobs = shown.loader(data), suite_pictures.jobs_of(shown.runs, clip, data)
        maps = [
            suite_pictures.predicted(clip, loader, jobs, loader(place), shown.first).maps
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


def facts(text):
    """The numbers of an explanation: by block, of clusters, of noise, and by region."""
    blocks = re.findall(r"block +(\d+): (\d+) \(([\d.]+) %, ([\d.]+) %\)", text)
    (clusters,) = re.findall(r"clusters: (\d+), denoised (\d+); .* (\d+) %, denoised (\d+) %", text)
    noise = r"noise: (\d+) of the \d+ clusters .*, (\d+) of (\d+) patches; .* (\d+) patches"
    region = r"region (\d+), ([\d.]+) % of the picture: (\w+), of ([\d.]+) % of its pixels"
    regions = re.findall(region + r"(?:; next (\w+), ([\d.]+) %)?", text)
    return blocks, [*map(int, clusters)], [*map(int, *re.findall(noise, text))], regions


def test_explanation_agrees_with_the_numbers_of_the_figures(scenes, undrawn, tmp_path, capsys):
    run(scenes[1], "--classes", ",".join(WORDS), "--blocks", "7,8,9,10,11,12", "--out", tmp_path)
    text = (tmp_path / "explanation.txt").read_text()
    assert capsys.readouterr().out.startswith(text)
    blocks, clusters, noise, regions = facts(text)
    two, ten = (numbers(tmp_path / f"{name}.npz") for name in (FIG_2, FIG_10))
    row, column = divmod(int(two["0_patch"]), int(two["0_grid"][1]))
    assert f"14 × 14 patches; the patch shown is in row {row}, column {column}\n" in text

    assert [int(block) for block, *_ in blocks] == [7, 8, 9, 10, 11, 12]
    assert any(int(count) for _, count, _, _ in blocks)
    for (_, count, share, of_cls), attention in zip(blocks, two["0_attention"], strict=True):
        looked_at = attention[1:, 1:].astype(float).mean(axis=0)
        far = looked_at > looked_at.mean() + 3 * looked_at.std()
        assert int(count) == far.sum()
        assert float(share) == pytest.approx(100 * looked_at[far].sum() / looked_at.sum(), abs=0.06)
        assert float(of_cls) == pytest.approx(100 * attention[0, 1:][far].sum(), abs=0.06)

    before, after = ten["0_before"], ten["0_after"]
    none = [round(100 * (labels == -1).mean()) for labels in (before, after)]
    assert clusters == [before.max() + 1, after.max() + 1, *none]
    in_noise = sum(int((before == number).sum()) for number in ten["0_noisy"])
    left = int(((before >= 0) & (after < 0)).sum())
    assert noise == [len(ten["0_noisy"]), in_noise, before.size, left] and noise[0] > 0

    scr, final = two["0_scr"], two["0_final"]
    sizes = np.bincount(ten["0_regions"].ravel())
    assert [int(number) for number, *_ in regions] == list(np.argsort(-sizes, kind="stable")[:12])
    for number, size, winner, share, second, its in regions:
        inside = ten["0_regions"] == int(number)
        votes = {word: 100 * (scr[inside] == at).mean() for at, word in enumerate(WORDS)}
        assert float(size) == pytest.approx(100 * inside.mean(), abs=0.06)
        assert {WORDS[at] for at in final[inside]} == {winner}
        assert float(share) == pytest.approx(votes.pop(winner), abs=0.06)
        assert float(its or 0) == pytest.approx(max(votes.values()), abs=0.06)
        assert not second or votes[second] == max(votes.values())


def test_a_picture_without_a_cluster_keeps_the_class_of_every_pixel(
    scenes, undrawn, tmp_path, capsys
):
    words = ["--classes", ",".join(WORDS), "--set", "method.regions.min_samples=500"]
    run(scenes[0], *words, "--out", tmp_path)
    text = (tmp_path / "explanation.txt").read_text()
    assert "clusters: 0, denoised 0; patches of no cluster: 100 %, denoised 100 %" in text
    assert "regions: none, every pixel keeps its own class" in text
    arrays = numbers(tmp_path / "fig2_global_patches.npz")
    assert np.array_equal(arrays["0_scr"], arrays["0_final"])
    arrays = numbers(tmp_path / "fig10_denoising.npz")
    assert (arrays["0_regions"] == -1).all() and not arrays["0_boxes"].size


def test_a_second_network_has_a_grid_of_its_own(scenes, undrawn, tmp_path):
    """DINO's correlation takes the place of CLIP's; the patch is that at the same place."""
    options = ["--method", "cliptrase_dinov2", "--figures", "4,5", "--patch", "3,10"]
    run(scenes[0], *options, "--out", tmp_path)
    heat, clusters = (
        numbers(tmp_path / f"{name}.npz") for name in ("fig4_scr_attention", "fig5_clusters")
    )
    assert heat["0_grid"].tolist() == [14, 14] and heat["0_after_grid"].tolist() == [16, 16]
    assert clusters["0_before"].shape == clusters["0_after"].shape == (16, 16)
    seen = Segmenter("shapes_clip", "cliptrase_dinov2").explain(scenes[0], patch=(3, 10))
    assert np.array_equal(heat["0_after"], seen.correlation[1 + 4 * 16 + 12, 1:])
    assert heat["0_after"].argmax() == 4 * 16 + 12  # a patch is most like itself


def test_masks_of_sam_are_the_regions(scenes, undrawn, tmp_path):
    """Clusters are those of CLIP's correlation, as without SAM; where no mask lies is no region."""
    words = ["--classes", ",".join(WORDS), "--figures", "5"]
    made = {}
    for method in ("cliptrase", "cliptrase_sam"):
        run(scenes[0], *words, "--method", method, "--out", tmp_path / method)
        made[method] = numbers(tmp_path / method / "fig5_clusters.npz")
    plain, sam = made["cliptrase"], made["cliptrase_sam"]
    assert np.array_equal(plain["0_after"], sam["0_after"])
    segmenter = Segmenter("shapes_clip", "cliptrase_sam", WORDS, templates="shapes")
    assert np.array_equal(sam["0_regions"], segmenter(scenes[0]).regions)
    assert not np.array_equal(sam["0_regions"], plain["0_regions"])


def test_without_regions_or_words_what_needs_them_is_left_out(scenes, undrawn, tmp_path, capsys):
    run(*scenes, "--method", "clip", "--out", tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    of_each = {f"fig2_global_patches_{place}.npz" for place in (1, 2)}
    assert names == of_each | {"fig4_scr_attention.npz", "fig6_local_global.npz", "explanation.txt"}
    printed = capsys.readouterr().out
    assert printed.count("the method clusters no patches") == 2
    assert "no words were given (--classes): figures have no label maps\n" in printed
    assert (
        not {"0_plain", "0_scr", "0_final"} & numbers(tmp_path / "fig2_global_patches_1.npz").keys()
    )


def test_after_attention_is_the_released_attention(scenes, undrawn, tmp_path):
    run(scenes[0], "--figures", "4", "--after", "attention", "--at", "100,30", "--out", tmp_path)
    seen = Segmenter("shapes_clip").explain(scenes[0], at=(100, 30))
    assert seen.patch == 1 * 14 + 6  # 16 pixels a patch
    arrays = numbers(tmp_path / "fig4_scr_attention.npz")
    assert np.array_equal(arrays["0_after"], seen.released[1 + seen.patch, 1:])
    assert np.array_equal(arrays["0_before"], seen.attention[12][1 + seen.patch, 1:])


def test_a_pixel_is_one_of_the_upright_picture_and_of_what_a_crop_shows(tmp_path):
    """300 × 180 pixels: whole 23 × 14 patches; its crop shows the 180 columns in the middle."""
    noise = np.random.default_rng(0).integers(0, 256, (180, 300, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    whole, crop = Segmenter("shapes_clip"), Segmenter("shapes_clip", crop=True)
    assert whole.explain(picture, at=(299, 0)).patch == 22
    assert whole.explain(picture, at=(0, 179)).patch == 13 * 23
    assert crop.explain(picture, at=(60, 0)).patch == 0
    assert crop.explain(picture, at=(239, 179)).patch == 195
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert whole.explain(tmp_path / "turned.png", at=(299, 0)).patch == 22


@pytest.mark.slow
def test_the_same_input_makes_the_same_bytes_in_another_process(scenes, tmp_path):
    """Of all that is written: svg, png, npz, and the words."""
    options = ["--classes", ",".join(WORDS), "--figures", "10", "--out"]
    run(scenes[0], *options, tmp_path / "a")
    command = [sys.executable, "-m", "cliptrase.cli", "explain", scenes[0], *COMMON]
    subprocess.run([*command, *options, tmp_path / "b"], check=True, capture_output=True)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 3 + 1 and files == sorted(p.name for p in (tmp_path / "b").iterdir())
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
