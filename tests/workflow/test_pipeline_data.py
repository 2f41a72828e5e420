"""What the Snakefile asks about archives and weights, and what it says before a start."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import open_clip
import pytest
import yaml
from tests.objects import changed

from cliptrase import pipeline, plan
from cliptrase.data.fetch.sources import MIRROR, mirror_of, read_sources
from cliptrase.errors import UserError
from cliptrase.model import fetch
from cliptrase.model import receipt as weights_receipt
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline import estimate, markers
from cliptrase.pipeline.announcement import announcement
from cliptrase.resources import resource

GATED = "ADE20K_2021_17_01.zip"
CITYSCAPES = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")


@pytest.fixture
def empty(empty, monkeypatch) -> Path:
    """Without any data; nothing is timed."""
    monkeypatch.setattr(
        estimate, "timed", lambda suite, question, device, again: estimate._guess(question)
    )
    return empty


def write(path: str | Path, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def asks(marker: str) -> bool:
    """Whether a marker file makes Snakemake run its job again."""
    return time.time() - os.path.getmtime(marker) < 3600


def test_planning_the_paper_loads_neither_numpy_nor_torch(empty):
    code = (
        "import sys; from cliptrase import pipeline, plan; "
        "from cliptrase.pipeline.announcement import announcement; "
        "from cliptrase.pipeline import estimate, markers; "
        "from cliptrase.pipeline import data as pipeline_data; "
        "from cliptrase.config.settings import check_device; "
        "paper = plan.load('paper'); pipeline.stale_passes(paper); "
        "estimate._ask = lambda question: None; "
        "pipeline_data.lacking(paper, paper.passes); "
        "[markers.preparing(each, 'data') for each in ('coco', 'shapes')]; "
        "announcement(paper, list(paper.passes), list(paper.passes)); "
        "print({'numpy', 'torch', 'open_clip', 'hydra', 'httpx', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=empty, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_suite_s_data_folder_is_the_plan_s(smoke):
    assert smoke.data == "data"
    assert plan.load("miniature").data == "data/miniature"


def test_the_miniature_suite_has_what_the_paper_s_has(paper):
    mini, real = (
        yaml.safe_load(resource("conf", "suite", f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("miniature", "paper")
    )
    real["tables"].remove("table8_without_names")  # a few pictures: fewer regions than classes
    for key in ("roles", "tables", "protocol", "overrides"):
        assert mini[key] == real[key]


def test_only_what_the_user_alone_can_get_leaves_passes_out(empty, paper):
    names = list(paper.passes)
    lacking = pipeline_data.lacking(paper, names)
    assert {name: [one.name for one in lost] for name, lost in lacking.items()} == {
        "ade2021": [GATED],
        "cityscapes": list(CITYSCAPES),
    }
    rest = pipeline_data.without(paper, names, lacking)
    left_out = {name for name in names if name.split(".")[0] in ("ade2021", "cityscapes")}
    assert set(names) - set(rest) == left_out
    for archive in (GATED, *CITYSCAPES):
        write(f"data/raw/{archive}", "PK")
    assert pipeline_data.lacking(paper, names) == {}


def test_a_prepared_dataset_lacks_nothing(empty, paper):
    for dataset in ("ade2021", "cityscapes"):
        write(pipeline_data.selfcheck(dataset, "data"), "{}")
    assert pipeline_data.lacking(paper, paper.passes) == {}


def test_a_drawn_dataset_has_no_receipts(empty):
    assert pipeline_data.receipts("shapes", "data") == []
    assert pipeline_data.receipts("coco", "data") == [
        "data/raw/val2017.zip.json",
        "data/raw/stuffthingmaps_trainval2017.zip.json",
    ]
    assert pipeline_data.receipts("voc2012", "elsewhere") == [
        "elsewhere/raw/VOCtrainval_11-May-2012.tar.json"
    ]


def test_an_archive_is_checked_again_if_it_is_not_what_its_receipt_says(empty):
    archive = read_sources("data").archive("val2017.zip")
    receipt = Path("data/raw/val2017.zip.json")

    def asked() -> bool:
        return asks(markers.archive(archive.name, "data"))

    assert not asked(), "nothing is there"
    write(receipt, "{}")
    assert not asked(), "an archive that was deleted after preparing"
    write("data/raw/val2017.zip", "PK")
    assert asked()
    said = {"bytes": 2, "checksum_verified": "sha256", "checksum": archive.checksum[1]}
    write(receipt, json.dumps(said))
    assert not asked()


def test_a_mirror_serves_gated_archives_too(empty, paper, monkeypatch):
    monkeypatch.delenv(MIRROR, raising=False)
    assert mirror_of(None) is None and mirror_of("") is None
    assert mirror_of("http://lab") == "http://lab"
    monkeypatch.setenv(MIRROR, "http://other")
    assert mirror_of(None) == "http://other"
    assert mirror_of("http://lab") == "http://lab"
    names = list(paper.passes)
    assert pipeline_data.lacking(paper, names, "http://lab") == {}
    said = announcement(paper, names, names, "http://lab")
    assert "left out" not in said and f"{GATED}: unknown size, from http://lab" in said


def test_weights_are_fetched_for_models_that_a_hub_has(empty, paper, smoke):
    assert pipeline_data.weights(next(iter(smoke.passes.values())), "data") == []
    beside = {
        label for one in paper.passes.values() for label in pipeline_data.fetched_networks(one)
    }
    dinos = {"dinov2_b14", "dinov2_b14_reg", "dino_b16", "dino_b8"}
    assert beside == {"vit_b16", "sam_vit_h", "sam_vit_b", *dinos}
    for one in paper.passes.values():
        needed = {each.label for run in one.runs.values() for each in run.method.networks}
        receipts = [f"data/weights/{label}.json" for label in sorted({"vit_b16", *needed})]
        assert pipeline_data.weights(one, "data") == receipts


def test_weights_are_fetched_again_where_their_file_is_gone(empty):
    assert not asks(markers.weights("vit_b16", "data"))
    write("here", "weights")
    write("data/weights/vit_b16.json", '{"file": "here"}')
    assert not asks(markers.weights("vit_b16", "data"))
    Path("here").unlink()
    assert asks(markers.weights("vit_b16", "data"))


def test_a_dataset_is_prepared_again_where_it_lacks_a_part_that_a_run_needs(empty, paper):
    run = next(iter(paper.runs.values()))
    on_a_part = changed(run, {"benchmark.dataset": "coco", "benchmark.subset": "coco27"})
    scored = dataclasses.replace(paper, runs={"a": on_a_part})
    assert not asks(markers.dataset(scored, "coco")), "it is not prepared yet"
    write(pipeline_data.selfcheck("coco", "data"), "{}")
    assert asks(markers.dataset(scored, "coco"))
    write(pipeline_data.selfcheck("coco", "data"), '{"subsets": {"coco27": "digest"}}')
    assert not asks(markers.dataset(scored, "coco"))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_file_of_the_hub_s_cache_must_have_the_sha256_that_it_is_called_by(
    empty, monkeypatch, damaged
):
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of "test"
    write(f"blobs/{digest}", "tess" if damaged else "test")
    Path("model.safetensors").symlink_to(f"blobs/{digest}")
    monkeypatch.setattr(fetch, "fetch_weights", lambda *_: (Path("model.safetensors"), {}))
    if damaged:
        with pytest.raises(UserError, match=f"{digest}: damaged, .* delete it and run again"):
            weights_receipt.write_receipt("vit_b16", Path("receipt.json"))
        assert not Path("receipt.json").exists()
        return
    weights_receipt.main(["vit_b16", "receipt.json"])
    said = json.loads(Path("receipt.json").read_text())
    assert said["sha256"] == digest and said["checksum_verified"] == "sha256"
    assert said["bytes"] == 4 and said["file"] == "model.safetensors"


def test_weights_that_cannot_be_had_are_one_message(empty, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_CACHE", str(empty))
    monkeypatch.setattr(fetch, "_cached", lambda source: None)
    with pytest.raises(SystemExit) as ended:
        weights_receipt.main(["vit_b16", "receipt.json"])
    error = capsys.readouterr().err
    assert ended.value.code == 1 and error.startswith("error: the weights of ViT-B-16-quickgelu")
    assert error.count("\n") == 1


def test_a_start_says_what_it_will_read(empty, smoke):
    first, second = smoke.passes
    said = announcement(smoke, [first, second], [first, second])
    assert "2 of 2, to read 8 images" in said
    assert f"{first}: {len(smoke.passes[first].runs)} runs from 4 images of shapes" in said
    assert "download" not in said and "weights" not in said and "time: about" in said
    said = announcement(smoke, [first, second], [second])
    assert "1 of 2, to read 4 images" in said and first not in said
    assert "0 of 2" in announcement(smoke, [first, second], [])


def test_a_start_of_the_paper_says_what_it_will_download(empty, paper, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *names: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=6 * 10**9))
    names = list(paper.passes)
    lines = announcement(paper, names, names).splitlines()
    said = "\n".join(lines)
    assert "runs from 5000 images of coco" in said
    assert "left out: 2 passes over ade2021, which you alone can get:" in lines
    assert any(line.startswith(f"  {GATED}: https://ade20k") for line in lines)
    command = "cliptrase prepare ade2021 --from FOLDER --data data"
    assert f"  if it is extracted already: `{command}`" in lines
    assert "left out: 3 passes over cityscapes, which you alone can get:" in lines
    # 815.6 + about 659 + 1,999.6 + about 1,300 + about 30.7 + 967.4 MB, and coco27's list
    assert "to download: 7 archives, about 5.8 GB, 1 of unknown size" in lines
    assert "  VOCtrainval_03-May-2010.tar: about 1.3 GB, from host.robots.ox.ac.uk" in lines
    assert "  val2017.zip: 815.6 MB, from images.cocodataset.org" in lines
    assert "weights of vit_b16: 599.0 MB, to be fetched" in lines
    assert "weights of sam_vit_h: 2.6 GB, to be fetched" in lines
    assert any(
        line.startswith("disk: about ")
        and "6.0 GB free in data and results and " in line  # and the hub's cache
        and line.endswith(": NOT ENOUGH")
        for line in lines
    ), "the archives alone would fit"
    assert any(line.startswith("time: about ") and "hours of one core" in line for line in lines)
    said = announcement(paper, names, names, "http://lab:8000")
    assert "val2017.zip: 815.6 MB, from http://lab:8000" in said


def test_a_start_does_not_count_what_is_there(empty, paper):
    for dataset in ("coco", "voc2012", "pcontext"):
        write(pipeline_data.selfcheck(dataset, "data"), "{}")
    for label in pipeline_data.fetched_networks(paper.passes["voc2012.vit_b16.224.crop"]):
        write(f"data/weights/{label}.json", "{}")
    for label in ("sam_vit_b", "sam_vit_h"):
        write(f"data/weights/{label}.json", "{}")
    write("data/raw/.ADEChallengeData2016.zip.part", "x" * 1000)
    names = pipeline.chosen_passes(paper, ["ade150", "voc20"])
    said = announcement(paper, names, names)
    assert "to download: 1 archive, 967.4 MB" in said
    assert "ADEChallengeData2016.zip: 967.4 MB, 1.0 kB of it are there" in said
    assert "weights" not in said and "left out" not in said and "NOT ENOUGH" not in said


def test_optional_archives_are_of_use_where_a_run_is_scored_on_what_they_list(paper):
    assert pipeline_data.parts(paper, "coco") == {"coco27"}
    assert pipeline_data.parts(paper, "voc2012") == set()
    runs = {name: run for name, run in paper.runs.items() if run.benchmark.subset is None}
    assert pipeline_data.parts(dataclasses.replace(paper, runs=runs), "coco") == set()


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("vit_b16", (7, True)),
        ("vit_l14", (1_700_000_000, False)),
        ("sam_vit_h", (2_560_000_000, False)),
    ],
)
def test_where_weights_are_is_known_without_torch(empty, monkeypatch, label, said):
    write("blob", "weights")
    cached = {("timm/vit_base_patch16_clip_224.openai", "open_clip_model.safetensors"): "blob"}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *name: cached.get(name))
    assert weights_receipt.size_and_place(label) == said


def test_weights_come_from_where_open_clip_has_them():
    for name, (repository, _) in weights_receipt.HUB.items():
        assert open_clip.get_pretrained_cfg(*name)["hf_hub"].rstrip("/") == repository
