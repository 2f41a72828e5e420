"""Text features are encoded once, and again for whatever else would have been encoded."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cliptrase.config import Run, resolve
from cliptrase.errors import UserError
from cliptrase.evaluate import kept, textcache
from cliptrase.model.load import load_clip
from cliptrase.model.text import text_features
from cliptrase.runs.scoring import class_names

WORDS = ["zebra", "red apple"]
TEMPLATES = ["a photo of a {}.", "many {}."]


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / "templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    return tmp_path


def resolved(lists: Path, model: Path) -> Run:
    words = [f"vocabulary={lists}/words.txt", f"benchmark.templates={lists}/templates.txt"]
    return resolve(["benchmark=shapes", "model=local", f"model.path={model}", *words])


def text(lists: Path, model: Path, data: Path) -> tuple[str, torch.Tensor]:
    run = resolved(lists, model)
    key, made = textcache.text_of(run, load_clip(run.model), data)
    return key, made.features


def files(data: Path) -> list[Path]:
    return sorted((data / "text_features").iterdir())


def test_the_features_are_those_of_the_tower_and_are_read_the_next_time(lists, model, tmp_path):
    data = tmp_path / "data"
    key, first = text(lists, model, data)
    clip = load_clip(resolved(lists, model).model)
    assert torch.equal(first, text_features(clip, WORDS, TEMPLATES))
    (file,) = files(data)
    kept.write(file, {"features": np.full((2, clip.embed_dim), 0.5, np.float32)})
    assert torch.equal(text(lists, model, data)[1], torch.full((2, clip.embed_dim), 0.5))
    assert text(lists, model, data)[0] == key


def test_a_prompt_that_would_be_cut_off_is_refused(lists, model, tmp_path):
    for file, line in (("words.txt", "word " * 90), ("templates.txt", "word " * 90 + "{}")):
        before = (lists / file).read_text()
        (lists / file).write_text(f"{before}{line}\n")
        with pytest.raises(UserError, match=r"9\d, and model .* reads 77"):
            text(lists, model, tmp_path / "data")
        (lists / file).write_text(before)
    assert not (tmp_path / "data").exists()


def test_one_class_without_background_is_warned_about(lists, model, tmp_path, caplog):
    text(lists, model, tmp_path / "data")
    assert not caplog.text
    (lists / "words.txt").write_text("zebra red apple\n")
    text(lists, model, tmp_path / "data")
    assert f"{lists}/words.txt: one class was read, 'zebra red apple', and no" in caplog.text


def reverse_the_rows(file: Path) -> None:
    features = np.load(file)["features"]
    np.savez(file, features=features[::-1])


def turn_a_bit(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


def put_another(file: Path) -> None:
    """The features of other words, whole, under the name of these."""
    kept.write(file.with_name("other.npz"), {"features": np.ones((2, 32), np.float32)})
    file.with_name("other.npz").replace(file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"no zip"),
        lambda file: np.savez(file, features=np.full((2, 3), 0.5, np.float32)),
        reverse_the_rows,
        put_another,
        *(lambda file, at=place: turn_a_bit(file, at) for place in (0, 9, 30, 130, 300, -40, -1)),
    ],
)
def test_a_damaged_file_is_written_again(lists, model, tmp_path, damage, caplog):
    data = tmp_path / "data"
    first = text(lists, model, data)[1]
    (file,) = files(data)
    content = file.read_bytes()
    damage(file)
    assert torch.equal(text(lists, model, data)[1], first)
    assert file.read_bytes() == content
    (said,) = caplog.messages
    assert said == f"{file} is not what was written: encoding the words again"
    assert torch.equal(text(lists, model, data)[1], first) and len(caplog.messages) == 1


@pytest.mark.parametrize("refusal", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_data_folder_that_cannot_be_written_costs_the_cache_alone(
    lists, model, tmp_path, monkeypatch, caplog, refusal
):
    def refused(*_, **__):
        raise OSError(refusal, os.strerror(refusal))

    first = text(lists, model, tmp_path / "elsewhere")[1]
    with monkeypatch.context() as patch:
        patch.setattr("cliptrase.files.claimed", refused)
        assert torch.equal(text(lists, model, tmp_path / "data")[1], first)
    (said,) = caplog.messages
    assert said.startswith(f"the encoded words are not kept: {tmp_path}/data/text_features")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("change", ["word", "template", "order", "weights", "quick_gelu"])
def test_what_changes_a_feature_changes_the_file(lists, model, tmp_path, change):
    data, other = tmp_path / "data", tmp_path / "model"
    before = text(lists, model, data)
    shutil.copytree(model, other)
    if change == "word":
        (lists / "words.txt").write_text("zebra\ngreen apple\n")
    elif change == "template":
        (lists / "templates.txt").write_text("a photo of a {}.\n")
    elif change == "order":
        (lists / "words.txt").write_text("red apple\nzebra\n")
    elif change == "weights":
        path = other / "open_clip_model.safetensors"
        content = bytearray(path.read_bytes())
        content[-400:] = bytes(400)
        path.write_bytes(content)
    else:
        path = other / "open_clip_config.json"
        settings = json.loads(path.read_text())
        settings["model_cfg"]["quick_gelu"] = False
        path.write_text(json.dumps(settings))
    after = text(lists, other, data)
    assert after[0] != before[0]
    assert len(files(data)) == 2


def test_a_copy_of_the_model_elsewhere_shares_the_file(lists, model, tmp_path):
    shutil.copytree(model, tmp_path / "copy")
    first = text(lists, model, tmp_path / "data")
    second = text(lists, tmp_path / "copy", tmp_path / "data")
    assert first[0] == second[0] and len(files(tmp_path / "data")) == 1


def test_background_words_are_one_class_more(model, tmp_path):
    run = resolve(["benchmark=shapes_bg", "model=local", f"model.path={model}"])
    _, made = textcache.text_of(run, load_clip(run.model), tmp_path)
    assert made.features.shape[0] == 27 and made.owner.tolist() == [*range(20), *[20] * 7]
    assert class_names(run)[-1] == "background"


BACKGROUND = ["grass", "brick", "grass"]


def synonyms(tmp_path: Path, model: Path, *protocol: str) -> Run:
    """Two classes, the first with two names, and three background words, one of them twice."""
    (tmp_path / "mine.txt").write_text("zebra|ladybug\nred apple\n")
    (tmp_path / "mine_background.txt").write_text("grass|brick\ngrass\n")
    (tmp_path / "prompts.txt").write_text("\n".join(TEMPLATES) + "\n")
    return resolve(
        [
            *("benchmark=shapes_bg", "model=local", f"model.path={model}", *protocol),
            f"vocabulary={tmp_path / 'mine.txt'}",
            f"benchmark.templates={tmp_path / 'prompts.txt'}",
        ]
    )


@pytest.mark.parametrize("protocol", ["crop", "slide"])
def test_each_name_has_its_own_feature_and_its_class(model, tmp_path, protocol):
    """Under crop the background is the last class, under slide class 0."""
    run = synonyms(tmp_path, model, f"protocol={protocol}")
    clip = load_clip(run.model)
    _, made = textcache.text_of(run, clip, tmp_path / "data")
    classes = ["zebra", "ladybug", "red apple"]
    if protocol == "crop":
        names, owner = [*classes, *BACKGROUND], [0, 0, 1, 2, 2, 2]
        shown = ["zebra", "red apple", "background"]
    else:
        names, owner = [*BACKGROUND, *classes], [0, 0, 0, 1, 1, 2]
        shown = ["background", "zebra", "red apple"]
    assert made.owner.tolist() == owner and made.owner.dtype == torch.int64
    assert torch.equal(made.features, text_features(clip, names, TEMPLATES))
    assert class_names(run) == shown


def test_without_a_background_slide_and_crop_have_the_same_text(model, tmp_path):
    found = []
    for protocol in ("crop", "slide"):
        run = resolve(
            ["benchmark=shapes", "model=local", f"model.path={model}", f"protocol={protocol}"]
        )
        key, made = textcache.text_of(run, load_clip(run.model), tmp_path)
        assert made.owner.tolist() == list(range(27))
        found.append((key, class_names(run)))
    assert found[0] == found[1] and len(files(tmp_path)) == 1


def test_a_name_is_encoded_once_however_often_it_stands_there(model, tmp_path, monkeypatch):
    asked: list[list[str]] = []

    def counted(clip, names, templates, workers):
        asked.append(list(names))
        return text_features(clip, names, templates, workers)

    monkeypatch.setattr(textcache, "text_features", counted)
    run = synonyms(tmp_path, model)
    textcache.text_of(run, load_clip(run.model), tmp_path / "data")
    assert asked == [["zebra", "ladybug", "red apple", "grass", "brick"]]


def test_no_name_of_the_released_lists_is_encoded_twice_or_left_out():
    names = textcache.read_classes(
        resolve(["benchmark=ade847", "model=vit_b16"]).vocabulary.classes.path
    )
    distinct = {name for own in names for name in own}
    assert len(distinct) * 80 == 67_760  # prompts


def test_the_same_names_of_other_classes_are_another_text(model, tmp_path):
    """They share the encoded names, not the key that predictions are kept under."""
    keys = set()
    for line in ("zebra|ladybug\nred apple\n", "zebra\nladybug|red apple\n"):
        run = synonyms(tmp_path, model)
        (tmp_path / "mine.txt").write_text(line)
        keys.add(textcache.text_of(run, load_clip(run.model), tmp_path / "data")[0])
    assert len(keys) == 2 and len(files(tmp_path / "data")) == 1
