"""Which lists a run has: the chosen one with its background words, the protocol's, or its own."""

from pathlib import Path

import pytest

from cliptrase import config
from cliptrase.errors import UserError

PAPER = "model=vit_b16"


def lists(*overrides: str) -> tuple[str, str | None]:
    vocabulary = config.resolve([PAPER, *overrides]).vocabulary
    background = vocabulary.background
    return vocabulary.classes.name, None if background is None else background.name


SLIDE = {  # by hand: what each benchmark's default words are under protocol slide
    "voc20": ("sclip_voc20", None),
    "voc21": ("sclip_voc21", "sclip_voc21_background"),
    "voc21_standard": ("sclip_voc21", "sclip_voc21_background"),
    "pc59": ("sclip_pc59", None),
    "pc60": ("sclip_pc60", "sclip_pc60_background"),
    "pc459": ("pc459", None),
    "coco_stuff": ("sclip_coco_stuff171", None),
    "coco_object": ("sclip_coco_object", "sclip_coco_object_background"),
    "coco_object_standard": ("sclip_coco_object", "sclip_coco_object_background"),
    "ade150": ("sclip_ade150", None),
    "ade847": ("ade847", None),
    "coco27": ("coco27", None),
    "cityscapes27": ("cityscapes27", None),
    "cityscapes19": ("sclip_cityscapes19", None),
    "shapes": ("shapes", None),
    "shapes_bg": ("shapes_objects", "shapes_background"),
    "shapes_clean": ("shapes", None),
    "shapes_fine": ("shapes_fine", None),
}


def test_every_benchmark_has_its_default_words_stated():
    files = {file.stem for file in (config.files.CONF / "benchmark").glob("*.yaml")}
    assert set(SLIDE) == files - {"folder"}


@pytest.mark.parametrize("benchmark", SLIDE)
def test_under_slide_the_words_are_those_of_sclip_where_there_are_some(benchmark):
    assert lists(f"benchmark={benchmark}", "protocol=slide") == SLIDE[benchmark]
    own = config.load("benchmark", benchmark)
    own_lists = (own["classes"], own["background"])
    assert lists(f"benchmark={benchmark}") == own_lists
    none = ["protocol=slide", "protocol.vocabularies=null"]
    assert lists(f"benchmark={benchmark}", *none) == own_lists


@pytest.mark.parametrize("benchmark", SLIDE)
def test_the_words_of_sclip_are_as_many_as_the_benchmarks_own(benchmark):
    slide, crop = (
        config.resolve([PAPER, f"benchmark={benchmark}", f"protocol={protocol}"]).vocabulary
        for protocol in ("slide", "crop")
    )
    assert slide.classes.count == crop.classes.count
    assert (slide.background is None) == (crop.background is None)


def test_words_that_are_given_stay_under_slide():
    slide = "protocol=slide"
    given = "benchmark.background=voc21_background_mended"
    assert lists("benchmark=voc21", slide, given) == ("voc20", "voc21_background_mended")
    plain = "benchmark.classes=plain_voc20"
    assert lists("benchmark=voc20", slide, plain) == ("plain_voc20", None)
    assert lists("benchmark=voc21", slide, "vocabulary=voc20") == ("voc20", "voc21_background")
    with pytest.raises(UserError, match=r"protocol\.vocabularies=sclp: must be sclip, or null"):
        config.resolve(["benchmark=voc21", PAPER, slide, "protocol.vocabularies=sclp"])


def test_a_shipped_list_brings_its_background_words_where_they_are_scored():
    pair = ("sclip_voc21", "sclip_voc21_background")
    assert lists("benchmark=voc21", "vocabulary=sclip_voc21") == pair
    assert lists("benchmark=voc20", "vocabulary=sclip_voc21") == ("sclip_voc21", None)
    without = ("sclip_voc20", "voc21_background")
    assert lists("benchmark=voc21", "vocabulary=sclip_voc20") == without
    assert lists("benchmark=voc21", "vocabulary=plain_voc20") == ("plain_voc20", "voc21_background")


def test_a_file_brings_the_background_words_beside_it(tmp_path: Path):
    words = tmp_path / "mine.txt"
    words.write_text("cat|kitten\nsofa\n")
    assert lists("benchmark=voc21", f"vocabulary={words}") == ("mine", "voc21_background")
    (tmp_path / "mine_background.txt").write_text("sky|cloud\nwall\nsky\n")
    assert lists("benchmark=voc20", f"vocabulary={words}") == ("mine", None)
    assert lists("benchmark=voc21", f"vocabulary={words}") == ("mine", "mine_background")
    vocabulary = config.resolve([PAPER, "benchmark=voc21", f"vocabulary={words}"]).vocabulary
    assert (vocabulary.classes.count, vocabulary.background.count) == (2, 3)
    assert vocabulary.background.path == str(tmp_path / "mine_background.txt")
    benchmark = ["benchmark=voc21", f"benchmark.classes={words}"]  # no vocabulary=: no pair
    assert lists(*benchmark) == ("mine", "voc21_background")


def test_a_word_of_the_background_is_no_name_of_a_class(tmp_path: Path):
    words, background = tmp_path / "mine.txt", tmp_path / "back.txt"
    words.write_text("cat\nSky |cloud\n")
    with pytest.raises(UserError, match=r"voc21_background\.txt: 'sky' is the name 'Sky ' of a cl"):
        lists("benchmark=voc21", f"vocabulary={words}")
    assert lists("benchmark=voc20", f"vocabulary={words}")[0] == "mine"  # scores no background
    background.write_text("wall\ncat\n")
    with pytest.raises(UserError, match=r"back\.txt: 'cat' is the name 'cat' of a class"):
        lists("benchmark=voc21", f"benchmark.background={background}")
    (tmp_path / "mine_background.txt").write_text("wall\nfloor\nwall\n")
    assert lists("benchmark=voc21", f"vocabulary={words}") == ("mine", "mine_background")


def test_synonyms_are_part_of_a_runs_identity(tmp_path: Path):
    words = tmp_path / "mine.txt"
    digests = []
    for line in ("cat|kitten", "cat|tom", "cat"):
        words.write_text(f"{line}\nsofa\n")
        run = config.resolve([PAPER, "benchmark=voc20", f"vocabulary={words}"])
        digests.append((run.vocabulary.classes.sha256, run.name))
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat|kitten\ndog|Cat\n", "'Cat' is named twice (lines 1 and 2)"),
        ("cat|\ndog\n", "line 1 has nothing on one side of a '|'"),
        ("caf\xe9\ndog\ncafe\u0301\n", "'cafe\u0301' is named twice (lines 1 and 3), to CLIP"),
        ("sky,grass,sand\n", "its only line is 'sky,grass,sand'"),
        ("cat\ndog\tsofa\n", "line 2, 'dog\\tsofa', holds '\\t'"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_computed(tmp_path: Path, content, message):
    words = tmp_path / "mine.txt"
    words.write_text(content)
    with pytest.raises(UserError) as caught:
        config.resolve([PAPER, "benchmark=voc20", f"vocabulary={words}"])
    assert f"{words}: {message}" in str(caught.value)


def test_prompts_of_ones_own_are_checked_and_may_hold_a_bar(tmp_path: Path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a {} | photo\na {}.\na {}.\n")
    run = config.resolve([PAPER, "benchmark=voc20", f"benchmark.templates={prompts}"])
    assert run.vocabulary.templates.count == 3
    prompts.write_text("a photo\n")
    with pytest.raises(UserError, match="line 1 is no template"):
        config.resolve([PAPER, "benchmark=voc20", f"benchmark.templates={prompts}"])


def test_an_unknown_list_names_the_nearest():
    with pytest.raises(
        UserError, match=r"unknown vocabulary 'sclip_voc2'.*did you mean 'sclip_voc2[01]'"
    ):
        config.resolve([PAPER, "benchmark=voc20", "vocabulary=sclip_voc2"])
    with pytest.raises(UserError, match=r"unknown vocabulary 'nope'.*voc20"):
        config.resolve([PAPER, "benchmark=voc20", "vocabulary=nope"])
