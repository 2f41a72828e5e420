"""Archives that a dataset can do without: fetched where somebody needs what they list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.miniature import contents, edited, packing
from tests.miniature.server import Fault, Server

from cliptrase.data.make import prepare
from cliptrase.data.read.prepared import read_selfcheck, read_subset
from cliptrase.errors import UserError

IDS = edited.ids("coco")


@pytest.fixture
def server(tmp_path):
    """Serves the list of images of coco27, which the data folder lacks."""
    folder = tmp_path / "served"
    folder.mkdir()
    listing = packing.tarred(contents.coco_curated(IDS[:1]), compressed=True)
    (folder / edited.CURATED).write_bytes(listing)
    with Server(folder) as running:
        yield running


def test_an_optional_archive_is_not_fetched_where_nobody_asks(
    tmp_path: Path, server, caplog
) -> None:
    data = tmp_path / "data"
    edited.place(data, "coco", {"curated": dict})
    (data / "raw" / edited.CURATED).unlink()
    words = ["coco", "--data", str(data), "--mirror", server.url]
    prepare.main([*words, "--without-optional"])
    assert server.count(f"/{edited.CURATED}") == 0
    with pytest.raises(
        UserError, match=r"it was not asked for.*; then run `cliptrase prepare coco"
    ):
        read_subset("coco", "coco27", data)
    server.faults[f"/{edited.CURATED}"] = Fault(status=404)
    prepare.main(words)
    assert re.search(rf"without {edited.CURATED}: .*404", caplog.text)
    prepare.main([*words, "--force"])
    with pytest.raises(UserError, match=r"was prepared without it \(.*404"):
        read_subset("coco", "coco27", data)
    server.faults.clear()
    prepare.main(words)
    assert read_subset("coco", "coco27", data) == set(IDS[:1])
    made = (data / "prepared/coco/selfcheck.json").stat().st_mtime_ns
    prepare.main([*words, "--without-optional"])
    assert (data / "prepared/coco/selfcheck.json").stat().st_mtime_ns == made, "it is there"
    assert edited.CURATED in (read_selfcheck(data / "prepared/coco") or {})["archives"]
