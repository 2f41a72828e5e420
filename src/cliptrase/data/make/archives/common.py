"""What the archives' modules share: which members are the images and masks of which ids."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cliptrase.data.fetch.sources import DatasetSource, raw_path, sources_path
from cliptrase.data.make.containers import Container, open_container
from cliptrase.data.make.expected import check_ids, known_ids
from cliptrase.data.make.records import Record
from cliptrase.data.read.images import Header, check_mask, stored_header
from cliptrase.errors import UserError

PIXELS = 100_000_000  # of a picture: more than any camera of these sources made


class Pair(NamedTuple):
    """The files of one image and its mask, and what to call them in a message."""

    id: str
    image: bytes
    label: bytes
    image_name: str
    label_name: str


@contextlib.contextmanager
def opened(source: DatasetSource, data: Path) -> Iterator[tuple[Container, Container]]:
    """The containers of a dataset's images and of its labels; one and the same opened once.

    Raises UserError: the sources lack a role, or an archive is absent, damaged or foreign.
    """
    for role in ("images", "labels"):
        if role not in source.archives:
            raise UserError(f"the sources of {source.name} name no archive of the role {role!r}")
    images, labels = (raw_path(source.archives[role], data) for role in ("images", "labels"))
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(open_container(images))
        same = images == labels
        yield first, first if same else stack.enter_context(open_container(labels))


def members(container: Container, pattern: str, what: str) -> dict[str, str]:
    """id → member, of the members whose whole name `pattern` matches; its first group is the id.

    Raises UserError where there is none, or an id twice.
    """
    found: dict[str, str] = {}
    names = container.names()
    for name in names:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        if match[1] in found:
            raise UserError(f"{container.path}: {found[match[1]]} and {name}: two of one id")
        found[match[1]] = name
    if not found:
        begins = ", ".join(names[:3]) or "nothing"
        raise UserError(
            f"{container.path}: holds no {what} (it begins with {begins}); is it another archive "
            "under this name? Put the right one in its place"
        )
    return found


def chosen(
    source: DatasetSource,
    data: Path,
    images: Collection[str],
    labels: Collection[str],
    wanted: Iterable[str] | None = None,
) -> list[str]:
    """The sorted ids of a dataset: those wanted, else all; each with its image and its mask.

    Raises UserError naming an image that lacks either, or is not the source's, or where their
    number is not the source's.
    """
    ids = sorted({*images, *labels} if wanted is None else set(wanted))
    for kind, there in (("image", images), ("mask", labels)):
        lacking = [one for one in ids if one not in there]
        if lacking:
            raise UserError(
                f"{source.name}: {_some(lacking)} without {kind} in the archive; it is not whole, "
                f"or not the one of {source.name}"
            )
    check_ids(source.name, ids, known_ids(source, data))
    if len(ids) != source.count:
        raise UserError(
            f"{source.name}: {len(ids)} images, where its source has {source.count} (first and "
            f"last: {ids[0]}, {ids[-1]}); the archives are not those of the source, or `count:` of "
            f"{source.name} in {sources_path(data)} is wrong"
        )
    return ids


def pairs(
    source: DatasetSource,
    data: Path,
    image: tuple[str, str],
    label: tuple[str, str],
    listing: str | None = None,
) -> Iterator[Pair]:
    """The pairs of files of a dataset, by id. image, label: pattern of the members, and its words.

    listing: the member of the images' archive that says which ids are wanted, else all that match.
    """
    with opened(source, data) as (images, labels):
        shown, masks = members(images, *image), members(labels, *label)
        wanted = None if listing is None else listed(images, listing)
        ids = chosen(source, data, shown, masks, wanted)
        shown, masks = ({one: place[one] for one in ids} for place in (shown, masks))
        if images is labels:
            images.keep({*shown.values(), *masks.values()})
        else:
            images.keep(shown.values())
            labels.keep(masks.values())
        for one in ids:
            yield Pair(
                one,
                images.read(shown[one]),
                labels.read(masks[one]),
                f"{images.path}: {shown[one]}",
                f"{labels.path}: {masks[one]}",
            )


def as_shipped(pairs: Iterable[Pair]) -> Iterator[Record]:
    """Records with nothing converted, once each pair's headers fit."""
    for pair in pairs:
        check_pair(pair)
        yield Record(pair.id, pair.image, pair.label)


def check_pair(pair: Pair) -> None:
    """Raise UserError where a photograph is none, a mask is none, or their sizes differ."""
    image = stored_header(pair.image, pair.image_name)
    check_photograph(image, pair.image_name)
    label = stored_header(pair.label, pair.label_name)
    check_mask(label, pair.label_name)
    check_sizes(pair, image.size, label.size)


def check_photograph(header: Header, name: str) -> None:
    """Refuse what cannot be a photograph, by its header. Raises UserError naming it."""
    kinds = {"JPEG": ("RGB", "L", "CMYK"), "MPO": ("RGB",), "PNG": ("RGB", "RGBA")}
    if header.mode not in kinds.get(header.format, ()):
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
    """The first words of the lines of the one member that `pattern` matches whole."""
    found = [name for name in container.names() if re.fullmatch(pattern, name)]
    if len(found) != 1:
        raise UserError(
            f"{container.path}: has {len(found)} lists of images ({pattern}) instead of one; put "
            "the right archive in its place"
        )
    lines = container.read(found[0]).decode("utf-8", "replace").splitlines()
    ids = [line.split()[0] for line in lines if line.strip()]
    if len(set(ids)) != len(ids):
        raise UserError(
            f"{container.path}: {found[0]}: lists an image twice; delete "
            f"{container.path} and run again"
        )
    return ids


def _some(ids: list[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more"
