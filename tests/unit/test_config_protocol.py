"""What a protocol decides of a run, and what of it a run's name shows."""

from __future__ import annotations

import pytest

from cliptrase import config

SLIDE = "protocol=slide"
PAPER = "model=shapes_clip"


def resolved(*overrides: str) -> config.Run:
    return config.resolve([PAPER, *overrides])


@pytest.mark.parametrize(
    ("benchmark", "side"), [("voc20", 336), ("cityscapes19", 560), ("cityscapes27", 560)]
)
def test_the_benchmark_says_how_large_a_picture_slides(benchmark, side):
    assert resolved(f"benchmark={benchmark}", SLIDE).protocol.short_side == side
    own = resolved(f"benchmark={benchmark}", SLIDE, "protocol.short_side=448")
    assert own.protocol.short_side == 448 and ".short_side-448." in own.name


def test_no_number_hangs_on_how_the_words_were_chosen():
    """`vocabularies` chooses lists; the lists are in the identity."""
    chosen, null = (
        resolved("benchmark=shapes", SLIDE, *more) for more in ([], ["protocol.vocabularies=null"])
    )
    assert chosen.name == null.name


def test_40_and_40_point_0_are_one_run():
    runs = [
        resolved("benchmark=shapes", SLIDE, f"protocol.{key}={value}")
        for key, values in {"logit_scale": (40, 40.0), "background_threshold": (0, 0.0)}.items()
        for value in values
    ]
    names = [run.name for run in runs]
    assert names[0] == names[1] and names[2] == names[3] != names[0]


def test_words_that_are_given_stay_even_where_they_are_the_benchmarks_own():
    given = ["benchmark.classes=voc20", "benchmark.background=voc21_background"]
    run = resolved("benchmark=voc21", SLIDE, *given)
    names = [run.vocabulary.classes.name, run.vocabulary.background.name]
    assert names == ["voc20", "voc21_background"]
    assert resolved("benchmark=voc21", SLIDE).vocabulary.classes.name == "sclip_voc21"


def test_the_name_of_a_run_shows_its_words_its_rule_and_regions_left_out():
    name = resolved("benchmark=voc20", "vocabulary=sclip_voc20", "protocol.rule=mmseg").name
    assert ".rule-mmseg.vocabulary-sclip_voc20." in name
    assert ".regions-none." in resolved("method.regions=null").name


@pytest.mark.parametrize(
    ("protocol", "vote", "cls_logits"), [("crop", "hard", True), ("slide", "none", False)]
)
def test_what_auto_means_under_a_protocol(protocol, vote, cls_logits):
    method = resolved("benchmark=voc20", "method=cliptrase", f"protocol={protocol}").method
    assert (method.regions.vote, method.cls_logits) == (vote, cls_logits)
