"""Which images a dataset has: the source's list of ids says so, image by image."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.miniature import edited
from tests.miniature.contents import Contents
from tests.miniature.edited import place, refused

from cliptrase.data.fetch.sources import read_sources
from cliptrase.data.make import prepare
from cliptrase.data.make.recipes import known_ids
from cliptrase.data.read.prepared import open_prepared

SHIPPED = {"coco": 5000, "voc2012": 1449, "pcontext": 5104, "ade2016": 2000}
every_dataset = pytest.mark.parametrize("dataset", edited.ARCHIVES)


def test_the_lists_that_ship(tmp_path: Path) -> None:
    sources = read_sources(tmp_path)
    for dataset, count in SHIPPED.items():
        ids = known_ids(sources.datasets[dataset], tmp_path) or []
        assert len(ids) == count == sources.datasets[dataset].count and ids == sorted(set(ids))
    assert {len(one) for one in known_ids(sources.datasets["coco"], tmp_path) or []} == {12}
    assert known_ids(sources.datasets["ade2016"], tmp_path) == [
        f"ADE_val_{number:08d}" for number in range(1, 2001)
    ]


@every_dataset
@pytest.mark.parametrize("how", ["replaced", "missing", "extra"])
def test_a_list_of_ids_is_a_check_of_every_dataset(dataset: str, how: str, tmp_path: Path) -> None:
    """Also where their number is right, and where no code of the dataset's own asks for it."""
    ids = edited.ids(dataset)
    first = "0" if dataset != "coco" else "000000000001"
    listed = {"replaced": [first, *ids[1:]], "missing": [first, *ids], "extra": ids[1:]}[how]
    data = place(tmp_path, dataset, expected={"ids": listed}, count=len(listed))
    message = {
        "replaced": rf"{dataset}: .*{first} is missing, and {ids[0]} is not of this dataset",
        "missing": rf"{dataset}: .*{first} is missing",
        "extra": rf"{dataset}: .*{ids[0]} is not of this dataset",
    }[how]
    if dataset == "pcontext":  # its list is what chooses the images of an archive of more
        if how == "extra":
            assert len(open_prepared(dataset, prepare.prepare(dataset, data).parents[1])) == 2
            return
        message = rf"pcontext: {first} without image"
    refused(data, dataset, message)


def test_an_image_by_another_name_is_named(tmp_path: Path) -> None:
    """In both archives, so that everything but the list agrees."""
    ids = edited.ids("coco")

    def renamed(held: Contents) -> Contents:
        return {name.replace(ids[1], "000000000633"): content for name, content in held.items()}

    edits: dict[str, Callable[[Contents], Contents]] = {"images": renamed, "labels": renamed}
    data = place(tmp_path, "coco", edits, expected={"ids": ids})
    refused(data, "coco", rf"{ids[1]} is missing, and 000000000633 is not of this dataset")
