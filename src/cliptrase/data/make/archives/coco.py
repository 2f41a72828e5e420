"""COCO val2017 with COCO-Stuff's masks: things 0..90, stuff 91..181, 255 unlabelled."""

from pathlib import Path

from cliptrase.data.fetch.sources import Archive, DatasetSource
from cliptrase.data.make.archives import common
from cliptrase.data.make.containers import open_container
from cliptrase.errors import UserError

CURATED = r"(?:[^/]+/)?curated/val2017/Coco164kFull_Stuff_Coarse_7\.txt"


records = common.reader(
    (r"(?:[^/]+/)?val2017/(\d{12})\.jpg", "photographs val2017/*.jpg"),
    (r"(?:[^/]+/)?val2017/(\d{12})\.png", "masks val2017/*.png"),
)


def subsets(
    source: DatasetSource, places: tuple[Path, ...], ids: list[str], archive: Archive
) -> dict[str, list[str]]:
    """`coco27`: the images of IIC's curated list, of the optional archive of that role.

    places: where to read it. Raises UserError for an archive that is damaged or lists an image that
    is none of `ids`.
    """
    if archive != source.optional.get("curated"):
        return {}
    with open_container(*places) as container:
        chosen = sorted(common.listed(container, CURATED))
    strange = sorted(set(chosen) - set(ids))
    if strange:
        raise UserError(
            f"{container}: lists {strange[0]}, which is no image of {source.name}; "
            f"{container.other}"
        )
    return {"coco27": chosen}
