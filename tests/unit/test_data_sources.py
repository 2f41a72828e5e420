"""The list of sources: what ships is what is documented, and every mistake in one is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cliptrase.data.fetch.sources import (
    how_to_get,
    is_web_address,
    missing_gated,
    raw_path,
    read_sources,
    readable,
    receipt_path,
    size_of,
    sources_path,
)
from cliptrase.data.make.recipes import known_ids
from cliptrase.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
IDS = ROOT / "../shared/datasets/val_ids"
SHIPPED = read_sources("no such folder")
COUNTS = {
    "coco": 5000,
    "coco_train": 118287,
    "voc2012": 1449,
    "pcontext": 5104,
    "ade2016": 2000,
    "ade2021": 2000,
    "cityscapes": 500,
}


def test_the_shipped_datasets_have_their_counts_and_archives():
    assert {name: dataset.count for name, dataset in SHIPPED.datasets.items()} == COUNTS
    used = {
        archive.name
        for dataset in SHIPPED.datasets.values()
        for archive in (*dataset.needed(), *dataset.optional.values())
    }
    assert used == set(SHIPPED.archives)
    for dataset in SHIPPED.datasets.values():
        assert set(dataset.archives) == {"images", "labels"}
    assert [one.name for one in SHIPPED.datasets["voc2012"].needed()] == [
        "VOCtrainval_11-May-2012.tar"
    ]
    assert [one.name for one in SHIPPED.datasets["coco"].optional.values()] == [
        "COCOStuff164kCurated.tar.gz"
    ]


def test_gated_data_has_no_address_but_the_owners_page():
    gated = {one.name for one in SHIPPED.archives.values() if one.gated}
    assert gated == {
        "ADE20K_2021_17_01.zip",
        "gtFine_trainvaltest.zip",
        "leftImg8bit_trainvaltest.zip",
    }
    for one in SHIPPED.archives.values():
        assert bool(one.urls) != bool(one.gated)
        assert one.gated is None or one.gated.page.startswith("https://")
        assert all(url.endswith(one.name) for url in one.urls)
    hosts = {url.split("/")[2] for one in SHIPPED.archives.values() for url in one.urls}
    assert not [host for host in hosts if "huggingface" in host or "kaggle" in host]


def test_published_checksums_are_whole_and_the_strongest():
    """As others published them: a slip of the pen would refuse the right file."""
    known = {one.name: one.checksum for one in SHIPPED.archives.values() if one.checksum}
    assert {name: kind for name, (kind, _) in known.items()} == {
        "val2017.zip": "sha256",
        "train2017.zip": "sha256",
        "VOCtrainval_11-May-2012.tar": "sha256",
        "VOCtrainval_03-May-2010.tar": "sha1",
        "trainval.tar.gz": "md5",
        "ADEChallengeData2016.zip": "sha256",
        "gtFine_trainvaltest.zip": "sha1",
        "leftImg8bit_trainvaltest.zip": "sha1",
    }
    documented = ROOT / "../shared/design/DATASETS.md"
    if documented.is_file():
        text = documented.read_text(encoding="utf-8")
        for one in SHIPPED.archives.values():
            assert one.checksum is None or one.checksum[1] in text
            assert one.bytes is None or f" {one.bytes} " in text


@pytest.mark.parametrize(
    ("dataset", "file"),
    [
        ("coco", "coco_val2017_5000"),
        ("voc2012", "voc2012_val_1449"),
        ("pcontext", "pascalcontext_val_5104"),
        ("ade2016", "ade20k_val_2000"),
    ],
)
def test_the_ids_are_those_of_the_published_lists(dataset, file):
    if not IDS.is_dir():
        pytest.skip("the lists are not beside this repository")
    lines = (IDS / f"{file}.txt").read_text(encoding="utf-8").split("\n")
    ids = sorted(line.split()[0] for line in lines if line)
    assert len(ids) == COUNTS[dataset]
    assert known_ids(SHIPPED.datasets[dataset], Path("nowhere")) == ids


def test_where_things_are_kept(tmp_path):
    one = SHIPPED.archive("val2017.zip")
    assert raw_path(one, tmp_path) == tmp_path / "raw/val2017.zip"
    assert receipt_path(one, tmp_path) == tmp_path / "raw/val2017.zip.json"


def test_what_is_gated_is_missing_until_it_is_there(tmp_path):
    cityscapes, coco = SHIPPED.datasets["cityscapes"], SHIPPED.datasets["coco"]
    assert len(missing_gated(cityscapes, tmp_path)) == 2 and not missing_gated(coco, tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/gtFine_trainvaltest.zip").write_bytes(b"PK")
    (left,) = missing_gated(cityscapes, tmp_path)
    assert left.name == "leftImg8bit_trainvaltest.zip"
    text = how_to_get(left, tmp_path)
    assert "https://www.cityscapes-dataset.com" in text
    assert text.endswith(f"put the file leftImg8bit_trainvaltest.zip into {tmp_path}/raw")


def test_sizes_for_people():
    assert readable(0) == "0 bytes" and readable(999) == "999 bytes"
    assert readable(1000) == "1.0 kB" and readable(999_949) == "999.9 kB"
    assert readable(999_950) == "1.0 MB" and readable(815_585_330) == "815.6 MB"
    assert size_of(SHIPPED.archive("val2017.zip")) == "815.6 MB"
    assert size_of(SHIPPED.archive("VOCtrainval_03-May-2010.tar")) == "about 1.3 GB"
    assert size_of(SHIPPED.archive("ADE20K_2021_17_01.zip")) == "unknown size"


@pytest.mark.parametrize("url", ["http://a.org/x", "https://a.org:8000", "http://127.0.0.1:1/"])
def test_web_addresses(url):
    assert is_web_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.org",
        "a.org",
        "http:///x",
        "http://a.org:x",
        "http://u@a.org",
        "http://a b",
        "",
        3,
        None,
    ],
)
def test_what_is_no_web_address(url):
    assert not is_web_address(url)


ARCHIVE: dict[str, Any] = {
    "role": "images",
    "urls": ["http://127.0.0.1/a.zip"],
    "bytes": 3,
    "checksum": {"md5": "A" * 32},
    "licence": "none",
    "gated": None,
}
DATASET: dict[str, Any] = {
    "archives": {"images": "a.zip"},
    "optional": {},
    "count": 1,
    "expected": {},
}
GATE = {"page": "https://a.org", "note": "ask"}


def written(data: Path, **changes: Any) -> Path:
    """<data>/sources.yaml with one archive and one dataset; `changes`: key or key__key → value."""
    content: dict[str, Any] = {
        "archives": {"a.zip": dict(ARCHIVE)},
        "datasets": {"toy": dict(DATASET)},
    }
    places = {"archive": content["archives"]["a.zip"], "dataset": content["datasets"]["toy"]}
    for key, value in changes.items():
        place, _, name = key.rpartition("__")
        where = places[place] if place else content
        if value is KeyError:
            del where[name]
        else:
            where[name] = value
    path = data / "sources.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_data_folder_may_bring_its_own_list(tmp_path):
    path = written(tmp_path)
    sources = read_sources(tmp_path)
    assert sources_path(tmp_path) == path
    one = sources.archive("a.zip")
    assert (one.bytes, one.checksum, one.about) == (3, ("md5", "a" * 32), None)
    assert sources.datasets["toy"].archives["images"] is one
    assert read_sources(tmp_path) is sources  # read once
    written(tmp_path, dataset__count=2)
    os.utime(path, ns=(5, 5))
    assert read_sources(tmp_path).datasets["toy"].count == 2
    path.unlink()
    assert read_sources(tmp_path) == SHIPPED


def test_what_exists_is_named_for_a_typo():
    with pytest.raises(UserError, match=r"unknown archive 'val2017'; did you mean 'val2017\.zip'"):
        SHIPPED.archive("val2017")


MISTAKES = [
    ({"archives": KeyError}, ": archives is missing"),
    ({"archive": {}}, "unknown key 'archive'; did you mean 'archives'"),
    ({"archives": []}, r"archives=\[\]: must be a mapping"),
    (
        {"archives": {"../a.zip": ARCHIVE}},
        r"archives\.\.\./a\.zip\.name=.*: no file name of an archive",
    ),
    ({"archives": {".a.zip": ARCHIVE}}, "no file name of an archive"),
    ({"archives": {"a.rar": ARCHIVE}}, "no file name of an archive"),
    ({"archives": {5: ARCHIVE}}, "no file name of an archive"),
    ({"archive__licence": KeyError}, "archives.a.zip.licence is missing"),
    ({"archive__licence": ""}, "archives.a.zip.licence=: must be a name or a path"),
    ({"archive__size": 3}, "unknown key 'archives.a.zip.size'; There is: about"),
    (
        {"archive__urls": "http://127.0.0.1/a.zip"},
        "archives.a.zip.urls=http://127.0.0.1/a.zip: must be a list",
    ),
    (
        {"archive__urls": ["ftp://127.0.0.1/a.zip"]},
        "urls.0=ftp://127.0.0.1/a.zip: must be an http:// or https:// address",
    ),
    ({"archive__bytes": "3 MB"}, "bytes=3 MB: must be a whole number, 1 or more"),
    ({"archive__bytes": 0}, "bytes=0: must be a whole number, 1 or more"),
    ({"archive__bytes": True}, "bytes=true: must be a whole number, 1 or more"),
    ({"archive__about": -1}, "about=-1: must be a whole number, 1 or more"),
    ({"archive__checksum": {"md5": "a" * 31}}, "checksum=.*: must be null or"),
    ({"archive__checksum": {"md5": 10**31}}, "checksum=.*: must be null or"),
    ({"archive__checksum": {"crc": "aaaaaaaa"}}, "checksum=.*: must be null or"),
    ({"archive__checksum": {"crc": ""}}, "checksum=.*: must be null or"),
    ({"archive__checksum": {}}, "checksum=.*: must be null or"),
    ({"archive__checksum": "a" * 64}, "checksum=.*: must be null or"),
    ({"archive__gated": GATE}, "has urls and is gated"),
    (
        {"archive__gated": {"page": "a.org", "note": "x"}, "archive__urls": []},
        "gated.page=a.org: must be an http:// or https:// address",
    ),
    (
        {"archive__gated": {"page": "https://a.org"}, "archive__urls": []},
        "a.zip.gated.note is missing",
    ),
    ({"dataset__archives": {}}, "datasets.toy.archives=.*: dictionary should have at least 1 item"),
    (
        {"dataset__archives": {"images": "b.zip"}},
        "archives.images=b.zip: unknown archive; did you mean 'a.zip'",
    ),
    ({"dataset__archives": {"images": ["a.zip"]}}, r"images=\['a.zip'\]: unknown archive"),
    ({"dataset__optional": {"list": "b.zip"}}, "optional.list=b.zip: unknown archive"),
    ({"dataset__count": 0}, "datasets.toy.count=0: must be a whole number, 1 or more"),
    ({"dataset__expected": []}, r"expected=\[\]: must be a mapping"),
    (
        {"dataset__expected": {"ignored": 0.5}},
        "unknown key 'datasets.toy.expected.ignored'; There is: ids",
    ),
    ({"dataset__expected": {"label_values": [0, 20]}}, "expected.label_values.0=0: must be a list"),
    ({"dataset__expected": {"shares": 0.5}}, "expected.shares=0.5: must be a list"),
    ({"dataset__expected": {"shares": [[255], 0.9, 1]}}, "expected.shares.0.0=255: must be a list"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_names_file_and_key(changes, message, tmp_path):
    path = written(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as error:
        read_sources(tmp_path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\xfa", b"", b"- a"])
def test_what_is_no_list_at_all(content, tmp_path):
    (tmp_path / "sources.yaml").write_bytes(content)
    with pytest.raises(
        UserError, match=r"sources\.yaml: (not YAML|must hold the keys archives, datasets)"
    ):
        read_sources(tmp_path)


def test_a_folder_of_that_name(tmp_path):
    (tmp_path / "sources.yaml").mkdir()
    with pytest.raises(UserError, match=r"sources\.yaml: cannot be read"):
        read_sources(tmp_path)


def test_planning_may_ask_for_sources():
    code = (
        "import sys; from cliptrase.data.fetch.sources import read_sources; read_sources(); "
        "print({'numpy', 'httpx', 'torch', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
