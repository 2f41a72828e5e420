"""Archives whose checksum nobody published, or published wrong: which copy is believed."""

import hashlib
import io
import re
import zipfile
from pathlib import Path

import pytest
from tests.faults.fetching import FAST, WHOLE, archive, changed
from tests.miniature import edited
from tests.miniature.edited import members, packed, place
from tests.miniature.server import Fault, Server

from cliptrase.data.fetch import receipts
from cliptrase.data.fetch.download import fetch
from cliptrase.data.fetch.receipts import has_receipt
from cliptrase.data.fetch.sources import read_sources
from cliptrase.data.make import prepare
from cliptrase.data.read.prepared import open_prepared
from cliptrase.errors import UserError

NAME = "ADE20K_2021_17_01.zip"
MASKS = "stuffthingmaps_trainval2017.zip"


def test_another_archive_under_this_name_is_deleted_with_what_is_kept_of_it(tmp_path: Path) -> None:
    """The message names both files; then the right archive is prepared, and no other any more."""
    data, right = place(tmp_path, "ade2021"), packed(NAME, members(NAME))
    other = "ADEChallengeData2016.zip"
    foreign, first = data / "raw" / NAME, data / "raw" / f"{NAME}.first.json"
    foreign.write_bytes(packed(other, members(other)))
    message = rf"{NAME}: holds no .*Put the right one in its place.*delete {foreign} with what is"
    with pytest.raises(UserError, match=message):
        prepare.prepare("ade2021", data)
    first.unlink()
    foreign.write_bytes(right)
    prepare.prepare("ade2021", data)  # as it said
    assert [sample.id for sample in open_prepared("ade2021", data)] == edited.ids("ade2021")
    assert has_receipt(read_sources(data).archive(NAME), data)
    foreign.write_bytes(packed(other, members(other)))
    with pytest.raises(UserError, match="that of the first copy was"):
        prepare.prepare("ade2021", data, force=True)
    assert len(open_prepared("ade2021", data)) == 3


def test_a_damaged_first_copy_is_fetched_again_as_its_message_says(tmp_path: Path) -> None:
    """A zip whose directory is fine says only when it is read that a byte is wrong."""
    data, served = place(tmp_path / "data", "coco"), tmp_path / "served"
    served.mkdir()
    for name in ("val2017.zip", MASKS):
        (data / "raw" / name).rename(served / name)
    with zipfile.ZipFile(served / MASKS) as masks:
        place_of_byte = masks.getinfo(f"val2017/{edited.ids('coco')[1]}.png").header_offset + 200
    with Server(served) as server:
        server.faults[f"/{MASKS}"] = Fault(wrong_byte=place_of_byte, times=1)
        with pytest.raises(UserError, match=rf"{MASKS}: .*damaged .*; delete \S+/raw/{MASKS} and"):
            prepare.prepare("coco", data, mirror=server.url)
        (data / "raw" / MASKS).unlink()
        (data / "raw" / f"{MASKS}.first.json").unlink()
        prepare.prepare("coco", data, mirror=server.url)
    assert len(open_prepared("coco", data)) == 3


WRONG = changed(archive(), checksum=("md5", "0" * 32))
RIGHT = hashlib.md5(WHOLE).hexdigest()
CURE = (
    rf"its md5 is {RIGHT} instead of 0+ \(if that is what its owner gives, correct `checksum:` of "
    r"a\.zip in \S*sources\.yaml\)"
)


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_published_checksum_that_is_wrong_is_named_with_its_file(
    by_hand: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the user could only fetch it again, for ever."""
    served, data = tmp_path / "served", tmp_path / "data"
    served.mkdir()
    (served / "a.zip").write_bytes(WHOLE)
    with Server(served) as server:
        one = changed(WRONG, urls=(f"{server.url}/a.zip", f"{server.url}/none.zip"))
        if by_hand:
            (data / "raw").mkdir(parents=True)
            (data / "raw/a.zip").write_bytes(WHOLE)
            one = changed(one, urls=one.urls[1:])
        with pytest.raises(UserError) as error:
            fetch(one, data, policy=FAST)
        assert re.search(CURE, caplog.text if by_hand else str(error.value))
        with pytest.raises(UserError, match=CURE):
            fetch(one, tmp_path / "other", policy=FAST, mirror=server.url)


def test_a_file_of_the_user_s_own_may_show_that_the_checksum_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.zip").write_bytes(WHOLE)
    (tmp_path / "sources.yaml").write_text("")
    with pytest.raises(UserError, match=CURE) as error:
        fetch(WRONG, tmp_path, policy=FAST)
    assert f"{tmp_path}/sources.yaml" in str(error.value)


def test_a_wrong_file_put_there_by_hand_is_named_where_no_other_can_be_had(tmp_path: Path) -> None:
    """Not only that the address cannot be reached; the file itself stays."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.zip").write_bytes(WHOLE[:-1])
    one = changed(archive(), urls=("http://a.invalid/a.zip",))
    with pytest.raises(UserError) as error:
        fetch(one, tmp_path, policy=FAST)
    size = f"{len(WHOLE) - 1:,} bytes instead of {len(WHOLE):,}"
    assert str(error.value).startswith(
        f"{tmp_path}/raw/a.zip: {size}; a.zip could not be fetched: "
    )
    assert str(error.value).endswith(f"by hand and put it at {tmp_path}/raw/a.zip")
    assert (tmp_path / "raw/a.zip").read_bytes() == WHOLE[:-1]


@pytest.mark.parametrize("kind", ["sha256", "md5", "sha1"])
def test_an_archive_is_read_once_for_all_its_checksums(kind, tmp_path, monkeypatch) -> None:
    path, read = tmp_path / "a.zip", []
    path.write_bytes(WHOLE)

    class Counted(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            read.append(content := super().read(size))
            return content

    monkeypatch.setattr(receipts, "open", lambda path, mode: Counted(path), raising=False)
    one = changed(archive(), checksum=(kind, hashlib.new(kind, WHOLE).hexdigest()))
    assert receipts.check(path, one, tmp_path)["sha256"] == hashlib.sha256(WHOLE).hexdigest()
    assert sum(map(len, read)) == len(WHOLE) + receipts.HEAD
