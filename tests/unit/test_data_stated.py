"""A prepared dataset is held against what its sources say today, whatever they said before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.miniature.edited import place

from cliptrase.data.make import prepare
from cliptrase.data.read.prepared import open_prepared, verify_prepared
from cliptrase.errors import UserError


def changed(data: Path, change: Callable[[dict[str, Any]], object], dataset: str) -> None:
    """Edit what the data folder's sources say of a dataset."""
    path = data / "sources.yaml"
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(said["datasets"][dataset] | {"of": said["archives"]})
    path.write_text(yaml.safe_dump(said), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["expected"].update(ids_sha256="0"), "expected: ids_sha256: 0 instead of null"),
        (lambda e: e["expected"].update(label_values=[[0, 9]]), r"label_values: \[\[0, 9\]\]"),
        (lambda e: e["expected"].update(ids="ids.txt"), "expected: ids: [0-9a-f]{64} instead of"),
        (
            lambda e: e["of"]["VOCtrainval_11-May-2012.tar"].update(checksum={"md5": "0" * 32}),
            r"archives: VOC.*tar: checksum: \[\"md5\", \"0{32}\"\] instead of null",
        ),
    ],
    ids=["figure", "values", "ids", "checksum"],
)
@pytest.mark.parametrize("raw", ["kept", "gone"])
def test_a_dataset_of_other_sources_is_made_again(
    raw: str, change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    """Also where its archives are gone, so that nothing but its self-check remembers them."""
    data = place(tmp_path, "voc2012", expected={"label_values": [[0, 20], [255, 255]]})
    (data / "ids.txt").write_text("\n".join(["a", "b", "c"]))
    folder = prepare.prepare("voc2012", data)
    if raw == "gone":
        for path in (data / "raw").iterdir():
            path.unlink()
    changed(data, change, "voc2012")
    for look in (open_prepared, verify_prepared):
        with pytest.raises(UserError, match=message) as error:
            look("voc2012", data)
        assert f"run `cliptrase prepare voc2012 --data {data}`" in str(error.value)
    assert len(open_prepared("voc2012", data, any_code=True)) == 3, "where no code was changed"
    if raw == "gone":
        with pytest.raises(UserError, match=r"VOCtrainval_11-May-2012\.tar: missing"):
            prepare.prepare("voc2012", data)
    elif "ids_sha256" in message:
        with pytest.raises(UserError, match=r"ids_sha256: [0-9a-f]{64} instead of 0"):
            prepare.prepare("voc2012", data)
    assert (folder / "samples.arrow").is_file()


def test_sources_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    """A prepared dataset is not taken for one that this version does not know."""
    data = place(tmp_path, "voc2012")
    prepare.prepare("voc2012", data)
    (data / "sources.yaml").write_text("archives: {}\ndatasets: {")
    with pytest.raises(UserError, match=r"sources\.yaml: not YAML"):
        open_prepared("voc2012", data)
    assert len(open_prepared("voc2012", data, any_code=True)) == 3
    (data / "sources.yaml").write_text("archives: {}\ndatasets: {}\n")
    with pytest.raises(UserError, match=r"unknown dataset 'voc2012'.*sources\.yaml"):
        open_prepared("voc2012", data)
