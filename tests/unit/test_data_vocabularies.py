"""Lists of names are read verbatim, and a broken list is refused with its line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cliptrase.data.read import vocabularies
from cliptrase.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / ".." / "shared" / "datasets" / "classes"
CARRIED = {  # file of this package: (file of the source, its key)
    "voc20": ("voc20", "classes"),
    "voc21_background": ("voc21", "background"),
    "coco_object80": ("coco_object80", "classes"),
    "coco_object_background": ("coco_object80", "background"),
    "coco_stuff171": ("coco_stuff171", "classes"),
    "pc59": ("pc59", "classes"),
    "pc60_background": ("pc60", "background"),
    "pc459": ("pc459", "classes"),
    "ade150": ("ade150", "classes"),
    "ade847": ("ade847", "classes"),
}
COUNTS = [20, 33, 80, 107, 171, 59, 1, 459, 150, 847]


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "count"), list(zip(CARRIED, COUNTS, strict=True)))
def test_shipped_lists_are_whole(name: str, count: int) -> None:
    assert len(vocabularies.read_names(vocabularies.vocabulary_path(name))) == count


@pytest.mark.parametrize("name", CARRIED)
def test_shipped_lists_equal_their_source_verbatim(name: str) -> None:
    file, key = CARRIED[name]
    if not SHARED.is_dir():
        pytest.skip("the source lists are not here")
    source = json.loads((SHARED / f"{file}.json").read_text(encoding="utf-8"))[key]
    assert vocabularies.read_names(vocabularies.vocabulary_path(name)) == source


def test_oddities_that_move_published_numbers_are_kept() -> None:
    def names(name: str) -> list[str]:
        return vocabularies.read_names(vocabularies.vocabulary_path(name))

    assert names("ade150")[7] == "bed "
    assert names("voc21_background").count("bed") == 2
    assert "beachhill" in names("voc21_background")
    assert names("voc20")[19] == "tv"
    assert (names("pc59")[49], names("pc459")[396]) == ("diningtable", "table")
    assert names("ade847")[1] == "building, edifice"
    assert names("coco_stuff171")[:80] == names("coco_object80")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"cat\ndog\n", ["cat", "dog"]),
        (b"cat\ndog", ["cat", "dog"]),
        (b"cat\ndog\n\n", ["cat", "dog"]),
        (b"bed \n  dog\t\n", ["bed ", "  dog\t"]),
        (b"\xef\xbb\xbfcat\r\ndog\r\n", ["cat", "dog"]),
        (b"cat\rdog\r", ["cat", "dog"]),
        (b"bed \rcat\r\r", ["bed ", "cat"]),
        ("köter\nа\u2028b\n".encode(), ["köter", "а\u2028b"]),
        (b"cat\ncat\n", ["cat", "cat"]),
    ],
)
def test_lines_are_taken_verbatim(tmp_path: Path, content: bytes, names: list[str]) -> None:
    assert vocabularies.read_names(written(tmp_path, content)) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "list is empty"),
        (b"\n", "list is empty"),
        (b" \n\t\n", "list is empty"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"\ncat\n", "line 1 is empty"),
        (b"cat\n\n\n", "line 2 is empty"),
        (b"cat\n  \n", "line 2 is empty"),
        (b"caf\xe9\n", "not UTF-8 text"),
        (b"\xff\xfec\x00a\x00", "not UTF-8 text"),
    ],
)
def test_a_broken_list_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=message) as error:
        vocabularies.read_names(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("second", ["cat", "Cat", " cat  "])
def test_a_users_list_names_a_class_once(tmp_path: Path, second: str) -> None:
    path = written(tmp_path, f"cat\ndog\n{second}\n".encode())
    with pytest.raises(UserError, match=r"'[cC]at' is named twice \(lines 1 and 3\)"):
        vocabularies.read_classes(path, unique=True)
    assert vocabularies.read_names(path)[2] == second


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("caf\xe9", "cafe\u0301"),
        ("bishop\u2019s hat", "bishop's hat"),
        ("\ufb01sh", "fish"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("\uff54\uff56", "tv"),
        ("t-shirt", "T - shirt"),
        ("route 66", "route 6 6"),
    ],
)
def test_names_that_the_tokenizer_reads_as_one_are_one(first: str, second: str) -> None:
    for classes in ([first, "dog", second], ["dog", f"sky|{first}", f"{second}|hat"]):
        with pytest.raises(UserError, match="is named twice") as caught:
            vocabularies.split_classes(classes, "--classes", unique=True, entry="entry")
        assert ascii(first) in str(caught.value) and ascii(second) in str(caught.value)
        vocabularies.split_classes(classes, "a shipped list")
    both = vocabularies.split_classes([f"{first}|{second}", "dog"], "x", unique=True)
    assert both == [[first, second], ["dog"]]  # in one class it does no harm
    with pytest.raises(UserError, match=r"sky\.txt: .* of a class too"):
        vocabularies.check_apart([["dog"], ["sky", first]], [["wall"], [second]], "sky.txt")
    vocabularies.check_apart([["dog"], ["sky"]], [["wall"], [first, second]], "sky.txt")


def test_a_name_of_which_the_tokenizer_reads_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"--classes: entry 2: '&nbsp;' is empty"):
        vocabularies.split_classes(["cat", "&nbsp;"], "--classes", unique=True, entry="entry")


CONTROL = ["\n", "\t", "\x00", "\x1b", "\x85", "\u2028", "\ufeff", "\u202e", "\udce9"]


@pytest.mark.parametrize("control", [*CONTROL, "<end_of_text>", "<START_of_text>"])
def test_control_characters_and_the_tokenizers_marks_are_refused(
    tmp_path: Path, control: str
) -> None:
    for unique in (True, False):
        with pytest.raises(UserError) as caught:
            vocabularies.split_classes(["cat", f"a{control}b"], "--x", unique=unique, entry="entry")
        assert str(caught.value).startswith("--x: entry 2, ") and repr(control) in str(caught.value)
    if control not in ("\n", "\udce9"):
        path = written(tmp_path, f"cat\na {control}{{}}.\n".encode())
        for read in (vocabularies.read_classes, vocabularies.read_templates):
            with pytest.raises(UserError, match=r"names\.txt: line 2, ") as caught:
                read(path)
            assert len(str(caught.value).splitlines()) == 1


def test_letters_of_every_alphabet_and_emoji_are_names() -> None:
    names = ["\U0001f469\u200d\U0001f33e", "می\u200cخواهم", "猫", "cafe\u0301", "❤\ufe0f", "a\xa0b"]
    assert vocabularies.split_classes(names, "x", unique=True) == [[name] for name in names]


@pytest.mark.parametrize(
    "line", ["sky,grass,sand", "sky, grass", "sky;grass", "sky、grass", "a，b"]
)
def test_a_list_on_the_only_line_of_a_file_is_no_name(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError, match=r"names\.txt: its only line is .* one name a line"):
        vocabularies.read_classes(written(tmp_path, f"{line}\n".encode()))
    assert len(vocabularies.read_classes(written(tmp_path, f"{line}\nwall\n".encode()))) == 2
    vocabularies.read_templates(written(tmp_path, b"a photo of a {}, cropped.\n"))


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("sky,grass\nsand,stone\n", "line 1 is 'sky,grass'"),
        ("sky,\ngrass,\n", "line 1 is 'sky,'"),
        ("- sky\n- grass\n", "line 1 is '- sky'"),
        ("1. sky\n2. grass\n", "line 1 is '1. sky'"),
        ("0,sky\n1,grass\n", "line 1 is '0,sky'"),
        ('["sky",\n"grass"]\n', "line 1 is '[\"sky\",'"),
        ('[\n  "sky",\n  "grass"\n]\n', "line 1 is '['"),
        ('{"sky": 0,\n"grass": 1}\n', "line 1 is '{"),
    ],
)
def test_lists_in_another_form_are_no_names(tmp_path: Path, content: str, place: str) -> None:
    with pytest.raises(UserError) as caught:
        vocabularies.read_classes(written(tmp_path, content.encode()))
    assert f"names.txt: {place}" in str(caught.value) and "one name a line" in str(caught.value)


def test_lists_in_another_form_are_no_entries() -> None:
    for entries in (["wall;door"], ['["sky"', '"sand"]'], ["1. sky", "2. sand"]):
        with pytest.raises(UserError, match=r"--x: .*entry.* one name an entry"):
            vocabularies.split_classes(entries, "--x", entry="entry")
    for entries in (["building, edifice"], ["3.5 inch disk"], ["1. FC Köln", "sky"]):
        assert len(vocabularies.split_classes(entries, "x", entry="entry")) == len(entries)


@pytest.mark.parametrize("unseen", ["\u200d", "\ufe0f", "\u2061", "\u180e", "\U000e0100"])
def test_names_that_differ_in_what_nobody_sees_are_one(unseen: str) -> None:
    with pytest.raises(UserError, match=r"named twice \(entries 1 and 2\).* to the eye"):
        vocabularies.split_classes(["sky", f"s{unseen}ky"], "x", unique=True, entry="entry")


@pytest.mark.parametrize("name", vocabularies.shipped(vocabularies.VOCABULARIES))
def test_shipped_lists_hold_nothing_that_is_refused(name: str) -> None:
    assert vocabularies.read_classes(vocabularies.vocabulary_path(name))


def test_a_list_of_an_option_has_entries_not_lines() -> None:
    with pytest.raises(UserError, match=r"--classes: 'cat' is named twice \(entries 1 and 3\)"):
        vocabularies.split_classes(["cat", "dog", "cat"], "--classes", unique=True, entry="entry")
    with pytest.raises(UserError, match="--classes: entry 2 is empty"):
        vocabularies.split_classes(["cat", ""], "--classes", entry="entry")


def test_names_of_a_class_stand_between_bars_verbatim(tmp_path: Path) -> None:
    path = written(tmp_path, b"person|person in shirt| body \nbuilding, edifice\nbed \n")
    assert vocabularies.read_classes(path, unique=True) == [
        ["person", "person in shirt", " body "],
        ["building, edifice"],
        ["bed "],
    ]
    assert len(vocabularies.read_names(path)) == 3


@pytest.mark.parametrize("line", ["cat|", "|cat", "cat||kitten", "cat| |kitten", "|"])
def test_nothing_beside_a_bar_is_refused(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, f"dog\n{line}\n".encode())
    with pytest.raises(UserError, match=r"names\.txt: line 2 has nothing on one side of a '\|'"):
        vocabularies.read_classes(path)


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (b"cat|kitten\ndog\nKitten |tom\n", "'Kitten' is named twice (lines 1 and 3)"),
        (b"dog\ncat|kitten|cat\n", "'cat' is named twice (line 2)"),
    ],
)
def test_a_name_belongs_to_one_class_of_a_users_list(
    tmp_path: Path, content: bytes, places: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError) as caught:
        vocabularies.read_classes(path, unique=True)
    assert f"{path}: {places}" in str(caught.value)
    assert len(vocabularies.read_classes(path)) == content.count(b"\n")


def test_background_words_come_last_or_first() -> None:
    classes, background = [["person", "body"], ["cat"]], ["sky", "wall", "sky"]
    assert vocabularies.owned_names(classes, background) == (
        ["person", "body", "cat", "sky", "wall", "sky"],
        [0, 0, 1, 2, 2, 2],
    )
    assert vocabularies.owned_names(classes, background, background_first=True) == (
        ["sky", "wall", "sky", "person", "body", "cat"],
        [0, 0, 0, 1, 1, 2],
    )
    for first in (False, True):  # without background words there is no class for them
        assert vocabularies.owned_names(classes, [], background_first=first)[1] == [0, 0, 1]


def test_background_words_of_a_list_stand_beside_it(tmp_path: Path) -> None:
    path = written(tmp_path, b"cat\n")
    assert vocabularies.background_path(path) is None
    (tmp_path / "names_background.txt").write_text("sky\n")
    assert vocabularies.background_path(path) == tmp_path / "names_background.txt"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.txt: no such file"):
        vocabularies.read_names(tmp_path / "absent.txt")
    with pytest.raises(UserError, match="a folder"):
        vocabularies.read_names(tmp_path)


def test_a_name_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.txt").write_text("cat\n")
    (tmp_path / "voc20").write_text("cat\n")
    monkeypatch.chdir(tmp_path)
    assert vocabularies.vocabulary_path("mine.txt") == tmp_path / "mine.txt"
    assert vocabularies.vocabulary_path("voc20").parent == vocabularies.VOCABULARIES
    assert vocabularies.vocabulary_path("./voc20") == tmp_path / "voc20"
    with pytest.raises(UserError, match=r"unknown vocabulary 'voc2'.*did you mean 'voc20'"):
        vocabularies.vocabulary_path("voc2")
    with pytest.raises(UserError, match=r"other.txt: no such file"):
        vocabularies.vocabulary_path("lists/other.txt")
    with pytest.raises(UserError, match="a folder"):
        vocabularies.vocabulary_path(tmp_path)
    with pytest.raises(UserError, match="unknown list of templates"):
        vocabularies.template_path("no_such_list")


def test_a_template_holds_the_name_once(tmp_path: Path) -> None:
    path = written(tmp_path, b"a photo of a {}.\na photo.\n")
    with pytest.raises(UserError, match="line 2 is no template"):
        vocabularies.read_templates(path)
    assert vocabularies.read_templates(written(tmp_path, b"a {}.\n")) == ["a {}."]


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys; from cliptrase.data.read import folder, labels, vocabularies\n"
        "heavy = {'torch', 'hydra', 'pandas', 'sklearn', 'datasets', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_notice_names_the_source_of_every_list_and_table() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    carried = [
        path.name
        for folder in ("vocabularies", "templates", "labels")
        for path in (ROOT / "src/cliptrase/data" / folder).iterdir()
        if not path.name.startswith(("shapes", "plain_"))
    ]
    assert len(carried) > 15
    assert [name for name in carried if not re.search(rf"^{re.escape(name)}\s", notice, re.M)] == []
    assert "\nplain_*.txt " in notice
