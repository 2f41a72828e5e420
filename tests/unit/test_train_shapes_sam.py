"""Training the embedded SAM: resumes bit for bit, prompts right, exports what the library loads."""

import json
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import SamModel

from cliptrase.shapes import card_sam, descent, sam, scenes, train_sam
from cliptrase.shapes.stream import Stream
from cliptrase.shapes.train import training_scene
from cliptrase.shapes.train_sam import Schedule, batch, draw_masks, grid_points, train

SCHEDULE = Schedule(steps=4, scenes=2, masks=2)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes_sam")


@pytest.fixture(scope="module")
def trained(folder):
    return train(SCHEDULE, folder / "whole.pt")


@pytest.fixture(scope="module")
def exported(trained, folder):
    sam.export(trained[0], folder / "out")
    return folder / "out"


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(folder, trained):
    train(SCHEDULE, folder / "parts.pt", stop=1)
    train(SCHEDULE, folder / "parts.pt", stop=3)
    model, record = train(SCHEDULE, folder / "parts.pt")
    for name, value in trained[0].state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert record["losses"] == trained[1]["losses"]


def test_a_checkpoint_of_another_recipe_is_refused(folder, trained):
    with pytest.raises(ValueError, match="another recipe"):
        train(Schedule(steps=4, scenes=2, masks=3), folder / "whole.pt")


def test_training_leaves_the_fourier_matrix_as_it_was_drawn(trained):
    start = sam.new_model(SCHEDULE.seed).state_dict()
    same = {name for name, value in trained[0].state_dict().items() if value.equal(start[name])}
    assert {name for name in start if "positional_embedding" in name} <= same
    assert not any("vision_encoder" in name for name in same)
    # Meta's frequencies are standard normal; transformers' own start would be 64 times as high.
    assert start["shared_image_embedding.positional_embedding"].std() == pytest.approx(1, abs=0.2)


def parts_of(mask):
    """8-connected parts, by flooding from pixel to pixel."""
    left, parts = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            part.add((y, x))
            for near in ((y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
                if near in left:
                    left.remove(near)
                    edge.append(near)
        parts.append(part)
    return parts


def test_masks_are_labels_or_their_connected_parts():
    label = np.zeros((60, 60), dtype=np.uint8)
    label[:15, :15] = 3
    label[15:30, 15:30] = 3  # touches the first by a corner: one part
    label[40:60, 40:60] = 3
    label[50:60, :10] = 7  # 100 pixels: too few
    allowed = {frozenset(zip(*np.nonzero(label == raw), strict=True)) for raw in (0, 3)}
    allowed |= {frozenset(part) for raw in (0, 3) for part in parts_of(label == raw)}
    allowed = {mask for mask in allowed if len(mask) >= train_sam.SMALLEST}
    assert len(allowed) == 4  # the background is in one piece
    seen = set()
    for seed in range(20):
        masks = draw_masks(label, 3, Stream(seed))
        assert masks.shape == (3, 60, 60) and masks.dtype == bool
        seen |= {frozenset(zip(*np.nonzero(mask), strict=True)) for mask in masks}
        # Labels take turns: of three masks, the first and the last are of one label.
        raws = [{int(raw) for raw in np.unique(label[mask])} for mask in masks]
        assert raws[0] == raws[2] != raws[1]
    assert seen == allowed


def test_scattered_points_lie_where_their_labels_say():
    mask = np.zeros((224, 224), dtype=bool)
    mask[10:20, 100:103] = True
    points, labels = train_sam.scattered_points(mask, 40, 60, Stream(5))
    assert points.dtype == np.float32 and list(labels) == [True] * 40 + [False] * 60
    for (x, y), label in zip(points.tolist(), labels.tolist(), strict=True):
        assert mask[int(y), int(x)] == label and x == int(x) and y == int(y)
    assert len({tuple(point) for point in points[:40].tolist()}) > 15  # of 30 pixels


@pytest.mark.parametrize("grid", [14, 21])
def test_grid_points_are_the_centres_of_patches(grid):
    mask = scenes.scene(3).label == scenes.scene(3).label[0, 0]
    points, labels = grid_points(mask, grid, 0.0, 0.0, Stream(1))
    index = 0
    for row in range(grid):
        for column in range(grid):
            x, y = (Fraction(2 * at + 1, 2) * 224 / grid for at in (column, row))
            # SAM's prompt encoder adds the half pixel again.
            assert points[index] == pytest.approx([float(x) - 0.5, float(y) - 0.5], abs=1e-5)
            assert labels[index] == mask[int(y), int(x)]
            index += 1
    assert len(points) == len(labels) == index


def test_a_grid_loses_points_and_has_as_many_wrong_ones_inside_as_outside():
    mask = np.zeros((224, 224), dtype=bool)
    mask[:112, :56] = True  # 7 x 3.5 patches: the centres of 7 x 3
    true, right = grid_points(mask, 14, 0.0, 0.0, Stream(0))
    assert right.sum() == 21 + 7 * (mask[8, 56])
    where = {tuple(point): label for point, label in zip(true.tolist(), right, strict=True)}
    missed = invented = 0
    for seed in range(300):
        points, labels = grid_points(mask, 14, 0.15, 0.1, Stream(seed))
        assert len(points) == 196 - 29
        order = [(y, x) for x, y in points.tolist()]
        assert order == sorted(order)
        for point, label in zip(points.tolist(), labels, strict=True):
            missed += where[tuple(point)] and not label
            invented += label and not where[tuple(point)]
    expected = 300 * right.sum() * 0.1 * 167 / 196
    assert missed == pytest.approx(expected, rel=0.15)
    assert invented == pytest.approx(expected, rel=0.15)


def test_a_mask_between_the_centres_gets_the_patch_that_holds_it():
    mask = np.zeros((224, 224), dtype=bool)
    mask[49:54, 33:39] = True  # in patch (3, 2), whose centre is (56, 40)
    points, labels = grid_points(mask, 14, 0.0, 0.0, Stream(0))
    assert points[labels].tolist() == [[39.5, 55.5]]


def test_a_batch_shows_scenes_or_their_mirror_images_with_the_masks_of_them():
    schedule = Schedule(steps=9, scenes=4, masks=3)
    mirrored = 0
    for step in range(4):
        made = batch(schedule, step)
        assert made.scattered.points.shape[:2] == made.grid.points.shape[:2] == (2, 3)
        assert made.scattered.labels.sum(dim=2).unique().numel() == 1
        for row in range(4):
            scene = training_scene(scenes.TRAIN_SEEDS[4 * step + row])
            ways = [sam.to_pixels(scene.image[None, :, ::way].copy())[0] for way in (1, -1)]
            way = [way.equal(made.images[row]) for way in ways].index(True)
            mirrored += way
            label = scene.label[:, :: 1 - 2 * way]
            for mask in made.masks[row]:
                # Whole cells of 4 x 4 pixels: the mask must be of one label.
                cells = label.reshape(56, 4, 56, 4)
                inside = [
                    np.bincount(cells[y, :, x].ravel(), minlength=256)
                    for y, x in mask.nonzero().tolist()
                ]
                assert (np.stack(inside).min(axis=0) >= 8).any()
    assert 0 < mirrored < 16


def test_decoding_gives_all_tokens_of_the_library(trained):
    model, made = trained[0], batch(SCHEDULE, 2)
    with torch.no_grad():
        embeddings = model.get_image_embeddings(made.images)
        logits, predicted = sam.decode(model, embeddings[1:], *made.grid)
        for multimask, tokens in ((False, slice(0, 1)), (True, slice(1, 4))):
            theirs = model(
                image_embeddings=embeddings[1:],
                input_points=made.grid.points,
                input_labels=made.grid.labels,
                multimask_output=multimask,
            )
            torch.testing.assert_close(logits[:, :, tokens], theirs.pred_masks)
            torch.testing.assert_close(predicted[:, :, tokens], theirs.iou_scores)


def test_the_loss_of_a_mask_is_that_of_its_formula():
    stream = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 4, 3, 5, generator=stream)
    predicted = torch.rand(1, 1, 4, generator=stream)
    mask = torch.rand(1, 1, 3, 5, generator=stream) > 0.5
    each, errors = [], []
    for token in range(4):
        focal, both, shares, hits, union = 0.0, 0.0, 0.0, 0, 0
        for value, true in zip(logits[0, 0, token].flatten(), mask.flatten().tolist(), strict=True):
            share = 1 / (1 + np.exp(-float(value)))
            right = share if true else 1 - share
            focal += -((1 - right) ** 2) * np.log(right) / 15
            both += share * true
            shares += share + true
            hits += value > 0 and true
            union += value > 0 or true
        each.append(20 * focal + 1 - (2 * both + 1) / (shares + 1))
        errors.append((float(predicted[0, 0, token]) - float(hits) / float(union)) ** 2)
    expected = each[0] + errors[0] + min(each[1:]) + sum(errors[1:]) / 3
    assert float(train_sam.loss_of(logits, predicted, mask.float())) == pytest.approx(expected)


def test_transformers_loads_the_export_and_ties_the_fourier_matrix(exported, trained):
    loaded, info = SamModel.from_pretrained(
        exported, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    assert not any(info.values())
    assert loaded.dtype == torch.float32 and type(loaded) is SamModel
    for name, value in trained[0].state_dict().items():
        assert loaded.state_dict()[name].equal(value.half().float()), name
    copies = (loaded.shared_image_embedding, loaded.prompt_encoder.shared_embedding)
    assert copies[0].positional_embedding.equal(copies[1].positional_embedding)
    written = load_file(exported / "model.safetensors")
    assert all(value.dtype == torch.float16 for value in written.values())
    assert sum("positional_embedding" in name for name in written) == 1
    assert (exported / "model.safetensors").stat().st_size <= 8_000_000


def test_the_card_says_what_was_measured(exported):
    record = {"recipe": asdict(SCHEDULE), "losses": [[4, 2.0]], "seconds": 60.0, "threads": 1}
    (exported / "training.json").write_text(json.dumps(record))
    figures = card_sam.write_card(exported, count=3)
    for prompt in card_sam.PROMPTS:
        for mean, low, high in figures[prompt].values():
            assert 0 <= low <= mean <= high <= 1
    text = (exported / "README.md").read_text()
    assert "8 scenes of `cliptrase.shapes` (seeds 0 to 7)" in text and "on 3 held-out" in text
    assert "Training loss" in (exported / "loss.svg").read_text()


def test_the_command_trains_exports_and_asks_for_the_card(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(card_sam, "write_card", asked.append)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)  # is global
    where = ["--steps=1", f"--store={tmp_path}", f"--out={tmp_path / 'out'}"]
    train_sam.main(where)
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["recipe"]["steps"] == 1 and record["threads"] == 1
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    train_sam.main(where)  # finished: only exports again
    assert "going on from step 1" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights
    assert asked == [tmp_path / "out"] * 2


def test_the_shipped_checkpoint_is_of_this_recipe_and_cuts_things_out():
    shipped = descent.ROOT / "assets" / "shapes_sam"
    record = json.loads((shipped / "training.json").read_text())
    assert record["recipe"] == asdict(Schedule())
    assert record["losses"][-1][0] == Schedule().steps
    # Other seeds than the card's, so that the card is not its own witness.
    figures = card_sam.measure(sam.load(shipped), 12, first=4_000_000)
    for prompt in card_sam.PROMPTS:
        reached, on_card = (each[prompt][card_sam.SINGLE] for each in (figures, record["figures"]))
        assert reached[0] > on_card[0] - 0.1
