"""`--config`: one function reads every key and value, and refuses what is wrong at the start."""

import pytest

from cliptrase.errors import UserError
from cliptrase.pipeline.settings import read_settings


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("suite", None, "shapes"),
        ("suite", 2024, "2024"),
        ("benchmarks", None, None),
        ("benchmarks", "voc20", ("voc20",)),
        ("benchmarks", "voc20, pc59", ("voc20", "pc59")),
        ("benchmarks", "[voc20,pc59]", ("voc20", "pc59")),
        ("benchmarks", ["voc20", 7], ("voc20", "7")),
        ("mirror", "http://lab/files/", "http://lab/files"),
        ("freeze_code", "true", True),
        ("freeze_code", "false", False),
        ("freeze_code", "False", False),
        ("freeze_code", True, True),
        ("device", "cuda:1", "cuda:1"),
        ("gpus", 0, 0),
        ("gpus", "2", 2),
        ("save_maps", None, None),
        ("save_maps", "4", 4),
        ("save_maps", 0, 0),
        ("tracking", "disabled", "disabled"),
        ("tracking", None, "offline"),
    ],
)
def test_a_setting_is_read_as_it_was_meant(key, value, wanted):
    """As Snakemake hands it on: a number, True, False, a list or else the text that was typed."""
    assert getattr(read_settings({key: value}), key) == wanted


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("suit", "paper", "unknown key 'suit'; did you mean 'suite'"),
        ("benchmark", "voc20", "did you mean 'benchmarks'"),
        ("freeze-code", "true", "did you mean 'freeze_code'"),
        ("limit", None, "unknown key 'limit'"),
        ("suite", ["shapes"], "suite=.*must be a name"),
        ("benchmarks", [], "benchmarks=.*must be a list of benchmarks"),
        ("benchmarks", "voc20,,pc59", "must be a list of benchmarks"),
        ("benchmarks", 5, "benchmarks=5: must be a list of benchmarks"),
        ("mirror", "ftp://lab", "^mirror=ftp://lab: must be"),
        ("freeze_code", "maybe", "freeze_code=maybe: must be true or false"),
        ("freeze_code", 1, "must be true or false"),
        ("device", "gpu", "device=gpu"),
        *(("gpus", wrong, "must be how many GPUs") for wrong in (-1, "-1", "all", 1.5, True, "²")),
        *(("save_maps", wrong, "how many label maps each run keeps") for wrong in (-1, "all")),
        ("shards", 0, "^shards=0: must be"),
        ("tracking", "onlin", "tracking=onlin: unknown value; did you mean 'online'"),
        ("tracking", "offline; touch X", "unknown value"),
    ],
)
def test_what_is_wrong_is_refused_with_its_key(key, value, message):
    with pytest.raises(UserError, match=message):
        read_settings({key: value})


def test_the_mirror_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CLIPTRASE_MIRROR", "http://lab")
    assert read_settings({}).mirror == "http://lab"
    assert read_settings({"mirror": "https://other"}).mirror == "https://other"
    monkeypatch.setenv("CLIPTRASE_MIRROR", "lab")
    with pytest.raises(UserError, match=r"^CLIPTRASE_MIRROR=lab: must be"):
        read_settings({})
