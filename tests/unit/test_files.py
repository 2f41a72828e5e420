"""Writing: whole or absent, and whatever the disk refuses is one message that names the path."""

import errno
import os
from pathlib import Path

import pytest

from cliptrase import files
from cliptrase.errors import UserError
from cliptrase.files import (
    atomic_write,
    check_writable,
    naming_the_path,
    read_json,
    read_sealed,
    sealed,
    write_json,
)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path, "w") as file:
        file.write("first")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(path, "w") as file:
        file.write("sec")
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "first"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_permissions_that_the_umask_gives(mask: int, tmp_path: Path) -> None:
    """And the mask stays as it is throughout, since other threads create files meanwhile."""
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"x")
            assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_umask_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "umask", None)
    write_json(tmp_path / "file.json", {"key": 1})
    assert read_json(tmp_path / "file.json") == {"key": 1}


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "no space left on the disk; free some"),
        (errno.EROFS, "check the folder's permissions"),
        (errno.EISDIR, "stands in the way"),
        (errno.ENOENT, "choose another place"),
        (errno.ENAMETOOLONG, "take a shorter one"),
        (errno.EIO, r"cannot be written \(Input/output error\); choose another place"),
    ],
)
def test_every_refusal_of_the_disk_names_the_path(number: int, cure: str) -> None:
    with pytest.raises(UserError, match=f"^results/x: .*{cure}"), naming_the_path("results/x"):
        raise OSError(number, os.strerror(number))


def test_an_error_without_a_number_names_the_path_too() -> None:
    message = r"^x: cannot be written \(two lines\); choose"
    with pytest.raises(UserError, match=message), naming_the_path("x"):
        raise OSError("two\nlines")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc here")
@pytest.mark.parametrize("path", ["/proc/x", "/proc/x/y.json"])
def test_a_place_where_nothing_can_be_made(path: str) -> None:
    with pytest.raises(UserError, match=f"^{path}: .*choose another place"), atomic_write(path):
        pass


def test_a_name_that_no_folder_takes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="take a shorter one"), atomic_write(tmp_path / ("x" * 300)):
        pass


@pytest.mark.parametrize("place", ["", "new/deep/file", "file/below", "x" * 250, "folder"])
def test_a_place_is_checked_without_making_anything(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    if place.startswith("new"):
        check_writable(tmp_path / place)
    else:
        with pytest.raises(UserError, match=r"stands in the way|take a shorter one"):
            check_writable(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


def test_of_a_link_the_target_is_written_and_a_pipe_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("folder/target")
    (tmp_path / "null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("link", "null", "pipe"):
        check_writable(tmp_path / name)
        with atomic_write(tmp_path / name, "w") as file:
            file.write("text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "null").is_symlink()
    assert (tmp_path / "folder" / "target").read_text() == "text"
    assert os.read(reader, 9) == b"text" and Path("/dev/null").is_char_device()
    os.close(reader)


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no /dev/fd here")
def test_a_link_to_a_pipe_without_a_name_is_written(tmp_path: Path) -> None:
    """As `o.json -> /dev/stdout` is in `… | cat`."""
    reader, writer = os.pipe()
    (tmp_path / "o.json").symlink_to(f"/dev/fd/{writer}")
    check_writable(tmp_path / "o.json")
    write_json(tmp_path / "o.json", {})
    assert os.read(reader, 9) == b"{}\n"
    os.close(reader)
    os.close(writer)


def test_what_a_killed_writer_of_the_file_left_is_deleted_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("folder/target.json")
    left, other = (tmp_path / f"folder/.{name}.0123abcd" for name in ("target.json", "link.json"))
    left.parent.mkdir()
    for path in (left, other):
        path.write_text("half")
    write_json(tmp_path / "link.json", {})
    assert not left.exists() and other.exists()


@pytest.mark.parametrize("make", [files.new_folder, files._new_file])
def test_what_is_swept_up_before_it_is_locked_is_made_again(make, tmp_path: Path) -> None:
    """A kill between making and locking leaves the same thing, so that must be swept up."""
    made = []

    def swept(path: Path) -> int:
        handle = make(path)
        made.append(path)
        if len(made) == 1:
            files.discard(path)
        return handle

    temporary, handle = files.claimed(tmp_path / "settings.json", swept)
    assert [path.exists() for path in made] == [False, True] and temporary == made[1]
    files.discard(temporary)
    assert temporary.exists()
    os.close(handle)
    files.discard(temporary)
    assert not temporary.exists()


def test_any_bit_of_a_file_with_a_digest_of_itself_is_noticed(tmp_path: Path) -> None:
    file, content = tmp_path / "file.json", {"count": 12, "versions": {"numpy": "2.4.6"}}
    files.write_json(file, sealed(content))
    assert read_sealed(file) == sealed(content) == sealed(sealed(content))
    whole = file.read_bytes()
    for bit in range(8 * len(whole)):  # of the digest and its key, too
        at = bit // 8
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit % 8]) + whole[at + 1 :])
        assert read_sealed(file) is None, (whole[at : at + 1], bit % 8)


def test_a_file_of_an_earlier_version_has_no_digest_of_itself(tmp_path: Path) -> None:
    files.write_json(tmp_path / "file.json", {"data": "0" * 64, "count": 12})
    assert read_sealed(tmp_path / "file.json") == {"data": "0" * 64, "count": 12}
