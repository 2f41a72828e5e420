"""What the archives' modules share: which members are the images and masks of which ids."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cliptrase.data.fetch.sources import DatasetSource, raw_path, sources_path
from cliptrase.data.make.containers import Container, open_container
from cliptrase.data.make.recipes import and_more, check_ids, known_ids
from cliptrase.data.make.records import Record
from cliptrase.data.read.images import Header, check_mask, read_header
from cliptrase.data.read.ordered import in_order
from cliptrase.errors import UserError, counted

PIXELS = 100_000_000  # of a picture: more than any camera of these sources made


class Pair(NamedTuple):
    """The files of one image and its mask, and what to call them in a message."""

    id: str
    image: bytes
    label: bytes
    image_name: str
    label_name: str


def as_shipped(pair: Pair) -> Record:
    """A record with nothing converted. Raises UserError as `check_pair`."""
    check_pair(pair)
    return Record(pair.id, pair.image, pair.label)


def reader(
    images: tuple[str, str],
    labels: tuple[str, str],
    *,
    convert: Callable[[Pair], Record] = as_shipped,
    listing: str | None = None,
    only_listed: bool = False,
) -> Callable[[DatasetSource, Path], Iterator[Record]]:
    """The `records` of a module: a function that gives a dataset's records, sorted by id.

    images, labels: the pattern of the members' names, whose first group is the id, and a
    description for messages. listing: the pattern of the member of the images' archive that lists
    the ids. only_listed: take the ids of the source's list. Else every id of the archives counts.

    It raises UserError: the source lacks a role; an archive is absent, damaged or foreign; an image
    lacks its mask or the other way round; the ids are not those of the source.
    """

    def records(source: DatasetSource, data: Path) -> Iterator[Record]:
        with contextlib.ExitStack() as stack:
            paths = [_path(source, role, data) for role in ("images", "labels")]
            opened = {path: stack.enter_context(open_container(path)) for path in {*paths}}
            photographs, masks = (opened[path] for path in paths)
            wanted = known_ids(source, data) if only_listed else None
            if listing is not None:
                wanted = listed(photographs, listing)
            image_of, mask_of = _members(photographs, *images), _members(masks, *labels)
            pairs = (
                Pair(
                    id,
                    photographs.read(image_of[id]),
                    masks.read(mask_of[id]),
                    f"{photographs.path}: {image_of[id]}",
                    f"{masks.path}: {mask_of[id]}",
                )
                for id in _ids(source, data, image_of, mask_of, wanted)
            )
            yield from in_order(convert, pairs)

    return records


def check_pair(pair: Pair) -> None:
    """Raise UserError where a photograph is none, a mask is none, or their sizes differ."""
    image = read_header(pair.image, pair.image_name, as_stored=True)
    check_photograph(image, pair.image_name)
    label = read_header(pair.label, pair.label_name, as_stored=True)
    check_mask(label, pair.label_name)
    check_sizes(pair, image.size, label.size)


def check_photograph(header: Header, name: str) -> None:
    """Refuse what cannot be a photograph, by its header. Raises UserError naming it."""
    modes = {"JPEG": ("RGB", "L", "CMYK"), "MPO": ("RGB",), "PNG": ("RGB", "RGBA")}
    if header.mode not in modes.get(header.format, ()):
        raise UserError(
            f"{name}: a {header.format} of mode {header.mode} is no photograph; are images and "
            "masks swapped? Put the right archive in its place"
        )
    if header.size[0] * header.size[1] > PIXELS:
        raise UserError(f"{name}: {header.size} pixels, more than any photograph of its source")


def check_sizes(pair: Pair, image: tuple[int, int], label: tuple[int, int]) -> None:
    """Raise UserError where the (width, height) of an image and its mask differ."""
    if image != label:
        raise UserError(
            f"{pair.label_name}: a mask of {label[0]} x {label[1]} pixels for an image of "
            f"{image[0]} x {image[1]} ({pair.image_name}); the archives are not of one dataset"
        )


def listed(container: Container, pattern: str) -> list[str]:
    """The first word of each line of the one member whose name `pattern` matches."""
    lists = [name for name in container.names() if re.fullmatch(pattern, name)]
    if len(lists) != 1:
        raise UserError(
            f"{container.path}: has {len(lists)} lists of images ({pattern}) instead of one; put "
            "the right archive in its place"
        )
    lines = container.read(lists[0]).decode("utf-8", "replace").splitlines()
    ids = [line.split()[0] for line in lines if line.strip()]
    if len(set(ids)) != len(ids):
        raise UserError(
            f"{container.path}: {lists[0]}: lists an image twice; delete "
            f"{container.path} and run again"
        )
    return ids


def _path(source: DatasetSource, role: str, data: Path) -> Path:
    if role not in source.archives:
        raise UserError(f"the sources of {source.name} name no archive of the role {role!r}")
    return raw_path(source.archives[role], data)


def _members(container: Container, pattern: str, description: str) -> dict[str, str]:
    """id → member, of the members whose whole name matches. Raises UserError for none or two."""
    members: dict[str, str] = {}
    names = container.names()
    for name in names:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        if match[1] in members:
            raise UserError(f"{container.path}: {members[match[1]]} and {name}: two of one id")
        members[match[1]] = name
    if not members:
        begins = ", ".join(names[:3]) or "nothing"
        raise UserError(
            f"{container.path}: holds no {description} (it begins with {begins}); is it another "
            "archive under this name? Put the right one in its place"
        )
    return members


def _ids(
    source: DatasetSource,
    data: Path,
    images: Mapping[str, str],
    labels: Mapping[str, str],
    wanted: Iterable[str] | None,
) -> list[str]:
    """The sorted ids, each of which has an image and a mask and is one of the source's."""
    ids = sorted({*images, *labels} if wanted is None else set(wanted))
    for kind, members in (("image", images), ("mask", labels)):
        lacking = [id for id in ids if id not in members]
        if lacking:
            raise UserError(
                f"{source.name}: {and_more(lacking)} without {kind} in the archive; it is not "
                f"whole, or not the one of {source.name}"
            )
    check_ids(source.name, ids, known_ids(source, data))
    if len(ids) != source.count:
        raise UserError(
            f"{source.name}: {counted(len(ids), 'image')}, where its source has "
            f"{source.count} (first and last: {ids[0]}, {ids[-1]}); the archives are not those of "
            f"the source, or `count:` of {source.name} in {sources_path(data)} is wrong"
        )
    return ids
