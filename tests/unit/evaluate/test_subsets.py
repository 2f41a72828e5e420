"""What is not needed: a list of images, of which only a good one is taken and which costs no more
than itself, and whose change is noticed."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.miniature import contents, edited, packing
from tests.miniature.edited import place

from cliptrase import config
from cliptrase.data.make import prepare
from cliptrase.data.read.prepared import open_prepared, read_selfcheck, read_subset, verify_prepared
from cliptrase.errors import UserError
from cliptrase.evaluate.tally import Progress
from cliptrase.runs import finished, store

IDS = edited.ids("coco")


def listing(ids: list[str]) -> bytes:
    return packing.tarred(contents.coco_curated(ids), compressed=True)


def placed(data: Path, content: bytes, **archive: object) -> Path:
    """A data folder of COCO whose optional archive is these bytes."""
    place(data, "coco", {"curated": lambda _: content})
    path = data / "sources.yaml"
    said = yaml.safe_load(path.read_text())
    said["archives"][edited.CURATED] |= archive
    path.write_text(yaml.safe_dump(said))
    return data


@pytest.mark.parametrize(
    ("content", "archive", "reason"),
    [
        (listing(IDS[:1]), {"checksum": {"sha256": "0" * 64}}, "its sha256 is .* instead of 0000"),
        (listing(IDS[:1])[:-20], {}, "its end is missing"),
        (b"<html>log in</html>", {}, "an HTML page instead of the archive"),
        (listing([*IDS[:1], "000000999999"]), {}, "lists 000000999999, which is no image of coco"),
        (packing.tarred({"data/list.txt": b"x"}, compressed=True), {}, "has 0 lists of images"),
    ],
    ids=["checksum", "cut off", "page", "strange id", "layout"],
)
def test_an_optional_archive_at_fault_costs_its_list_alone(
    content: bytes, archive: dict[str, object], reason: str, tmp_path: Path, caplog
) -> None:
    data = placed(tmp_path, content, **archive)
    folder = prepare.prepare("coco", data)
    assert [sample.id for sample in open_prepared("coco", data)] == IDS
    assert not list(folder.glob("subsets/*")) and f"coco: without {edited.CURATED}: " in caplog.text
    assert edited.CURATED not in (read_selfcheck(folder) or {})["archives"]
    with pytest.raises(UserError, match=reason) as error:
        read_subset("coco", "coco27", data)
    assert f"then run `cliptrase prepare coco --data {data}`" in str(error.value)
    made = (folder / "samples.arrow").stat().st_mtime_ns
    placed(data, listing(IDS[1:]))
    for first in (data / "raw").glob(f"{edited.CURATED}.first.json"):
        first.unlink()
    prepare.prepare("coco", data)  # as it says, once the archive is right
    assert (folder / "samples.arrow").stat().st_mtime_ns == made, "its images are what they were"
    assert read_subset("coco", "coco27", data) == set(IDS[1:])


def test_a_copy_that_is_not_the_first_one_is_not_read(tmp_path: Path) -> None:
    data = placed(tmp_path, listing(IDS[:2]))
    prepare.prepare("coco", data)
    placed(data, listing(IDS[1:2]))
    prepare.prepare("coco", data, force=True)
    with pytest.raises(UserError, match="that of the first copy was"):
        read_subset("coco", "coco27", data)


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_list_that_has_changed_is_no_list(how: str, tmp_path: Path) -> None:
    data = placed(tmp_path, listing(IDS[:2]))
    path = prepare.prepare("coco", data) / "subsets/coco27.txt"
    if how == "gone":
        path.unlink()
    else:
        path.write_text(f"{IDS[0]}\n")
    for look in (
        lambda: verify_prepared("coco", data),
        lambda: read_subset("coco", "coco27", data),
    ):
        with pytest.raises(UserError, match=r"subsets/coco27\.txt (is gone|has changed)"):
            look()
    prepare.prepare("coco", data)
    assert read_subset("coco", "coco27", data) == set(IDS[:2])
    assert verify_prepared("coco", data)["count"] == 3


def test_a_run_on_other_images_is_another_result(tmp_path: Path) -> None:
    """The digest that a finished run is held against covers its list, and no other run's."""
    part, whole = (
        config.resolve(["benchmark=coco27", "model=shapes_clip", *more])
        for more in ([], ["benchmark.subset=null"])
    )
    found = []
    for number in (1, 2):
        data = placed(tmp_path / str(number), listing(IDS[:number]))
        prepare.prepare("coco", data)
        found.append([finished.data_digest(run, data) for run in (part, whole)])
    assert found[0][0] != found[1][0] and found[0][1] == found[1][1] != found[0][0]
    check = json.loads((tmp_path / "1/prepared/coco/selfcheck.json").read_text())
    assert found[0][1] == check["pixels_sha256"]


def test_a_pass_over_two_lists_writes_down_each_run_s_own(tmp_path: Path, make, runs_of) -> None:
    data = placed(tmp_path / "data", listing(IDS[:1]))
    prepare.prepare("coco", data)
    more = ["benchmark=coco27", "method=clip", "benchmark.templates=shapes"]
    runs = runs_of(more, [*more, "benchmark.subset=null"])
    folders = make(runs, tmp_path / "out", data=data)
    for name, run in runs.items():
        said = json.loads((folders[name] / "provenance.json").read_text())["data"]
        assert said == finished.data_digest(run, data)
    assert not store.rescore(runs, tmp_path / "out", data)
    placed(data, listing(IDS[:2]))
    (data / "raw" / f"{edited.CURATED}.first.json").unlink()
    prepare.prepare("coco", data, force=True)
    again = store.rescore(runs, tmp_path / "out", data)
    assert [run.benchmark.subset for run in again.values()] == ["coco27"]


def test_a_pass_goes_on_only_with_the_same_list(
    tmp_path: Path, make, runs_of, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    caplog.set_level("INFO")
    data = placed(tmp_path / "data", listing(IDS[:1]))
    prepare.prepare("coco", data)
    runs = runs_of(["benchmark=coco27", "method=clip", "benchmark.templates=shapes"])
    save = Progress.save

    def stopping(self: Progress, path: Path, basis: dict[str, object]) -> None:
        save(self, path, basis)
        raise KeyboardInterrupt

    def stopped() -> None:
        monkeypatch.setattr(Progress, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            make(runs, tmp_path / "out", data=data, save_every=1)
        monkeypatch.setattr(Progress, "save", save)

    stopped()
    stopped()
    assert "going on from image 1" in caplog.text and "starting over" not in caplog.text
    placed(data, listing(IDS[1:]))
    (data / "raw" / f"{edited.CURATED}.first.json").unlink()
    prepare.prepare("coco", data, force=True)
    (folder,) = make(runs, tmp_path / "out", data=data).values()
    assert "starting over" in caplog.text
    skipped = np.load(folder / "per_image.npz")["skipped"]
    assert skipped.tolist() == [True, False, False]
