"""A server of one archive, for the tests of downloads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.fetching import WHOLE
from tests.miniature.server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "a.zip").write_bytes(WHOLE)
    with Server(folder) as running:
        yield running
