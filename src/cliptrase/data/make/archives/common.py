"""What the archives' modules share: which members are the images and masks of which ids."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cliptrase.data.fetch.sources import DatasetSource, raw_path, sources_path
from cliptrase.data.make.containers import Container, open_container
from cliptrase.data.make.recipes import FOREIGN, and_more, check_ids, known_ids
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

    It reads the archives in the data folder, or folders that they were extracted to, and raises
    UserError: the source lacks a role; an archive is absent, damaged or foreign; an image lacks its
    mask or the other way round; the ids are not those of the source.
    """

    def records(
        source: DatasetSource, data: Path, folders: tuple[Path, ...] = ()
    ) -> Iterator[Record]:
        with contextlib.ExitStack() as stack:
            places = [folders or (_path(source, role, data),) for role in ("images", "labels")]
            opened = {place: stack.enter_context(open_container(*place)) for place in {*places}}
            photographs, masks = (opened[place] for place in places)
            image_of, mask_of = _members(photographs, *images), _members(masks, *labels)
            wanted = known_ids(source, data) if only_listed else None
            if listing is not None:
                wanted = listed(photographs, listing)
            pairs = (
                Pair(
                    id,
                    photographs.read(image_of[id]),
                    masks.read(mask_of[id]),
                    photographs.called(image_of[id]),
                    masks.called(mask_of[id]),
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
            "masks swapped?"
        )
    if header.size[0] * header.size[1] > PIXELS:
        raise UserError(f"{name}: {header.size} pixels, more than any photograph of its source")


def check_sizes(pair: Pair, image: tuple[int, int], label: tuple[int, int]) -> None:
    """Raise UserError where the (width, height) of an image and its mask differ."""
    if image != label:
        raise UserError(
            f"{pair.label_name}: a mask of {label[0]} x {label[1]} pixels for an image of "
            f"{image[0]} x {image[1]} ({pair.image_name}); they are not of one dataset"
        )


def listed(container: Container, pattern: str) -> list[str]:
    """The first word of each line of the one member whose name `pattern` matches."""
    lists = [match.string for match in container.find(pattern)]
    if len(lists) != 1:
        wanted = re.sub(r"\(.*?\)\?|\\", "", pattern)
        raise UserError(
            f"{container}: has {len(lists)} lists of images ({wanted}) instead of one; "
            f"{container.other}"
        )
    lines = container.read(lists[0]).decode("utf-8", "replace").splitlines()
    ids = [line.split()[0] for line in lines if line.strip()]
    if len(set(ids)) != len(ids):
        raise UserError(f"{container.called(lists[0])}: lists an image twice; {container.other}")
    return ids


def _path(source: DatasetSource, role: str, data: Path) -> Path:
    if role not in source.archives:
        raise UserError(f"the sources of {source.name} name no archive of the role {role!r}")
    return raw_path(source.archives[role], data)


def _members(container: Container, pattern: str, description: str) -> dict[str, str]:
    """id → member, of the members whose whole name matches. Raises UserError for none or two."""
    members: dict[str, str] = {}
    for match in container.find(pattern):
        id, name = match[1], match.string
        if id in members:
            raise UserError(
                f"{container}: {members[id]} and {name} both have the id {id}; {container.other}"
            )
        members[id] = name
    if not members:
        begins = ", ".join(container.names()[:2]) or "nothing"
        raise UserError(
            f"{container}: holds no {description} (it begins with {begins}); {container.other}"
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
                f"{source.name}: {and_more(lacking)} without {kind}; what it is made from is not "
                f"whole, or not of {source.name}"
            )
    check_ids(source.name, ids, known_ids(source, data))
    if len(ids) != source.count:
        raise UserError(
            f"{source.name}: {counted(len(ids), 'image')}, where its source has {source.count} "
            f"(first and last: {ids[0]}, {ids[-1]}); {FOREIGN}, or `count:` of {source.name} in "
            f"{sources_path(data)} is wrong"
        )
    return ids
