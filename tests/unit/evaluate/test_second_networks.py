"""Networks beside CLIP in a pass: what runs say of them, embedded once, the same in any company."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from cliptrase.config import files, resolve
from cliptrase.config.backbones import choose, described, read_backbone
from cliptrase.config.method import BackboneNames
from cliptrase.errors import UserError
from cliptrase.evaluate import graph
from cliptrase.model.load import load_clip
from cliptrase.runs import finished

SAM = ["benchmark=shapes", "method=cliptrase_sam", "method.sam=shapes_sam"]
LAVG = ["benchmark=shapes", "method=lavg", "method.dino=shapes_dino"]
DINO = ["benchmark=shapes", "method=cliptrase_dinov2", "method.dino=shapes_dino"]
CLUSTERS = ["method.regions.eps=2", "method.regions.min_samples=2"]  # of the small model's patches
TRIDENT = ["benchmark=shapes", "method=trident", SAM[2], DINO[2]]
CORRCLIP = ["benchmark=shapes", "method=corrclip", SAM[2], DINO[2]]
COARSE = [*SAM, *CLUSTERS]
ALONE = (COARSE, DINO, LAVG, TRIDENT, CORRCLIP)
AUTO = [each[:2] for each in (SAM, DINO)]
real = graph.embed


def contents(folder):
    return {
        name: (folder / name).read_bytes() for name in finished.FILES if name != "provenance.json"
    }


@pytest.mark.parametrize("label", files.names("backbone"))
def test_every_network_of_conf_is_one_that_a_method_can_name(label):
    written, network = read_backbone(label), described(label)
    role = {"sam": "sam", "timm": "dino"}[written.kind]
    name = {"sam": "cliptrase_sam", "dino": "cliptrase_dinov2"}[role]
    run = resolve(["benchmark=voc20", "model=vit_b16", f"method={name}", f"method.{role}={label}"])
    assert getattr(run.method, role) == network == getattr(run.backbones, role)
    stored = run.identity["backbones"][role]
    assert stored.keys() <= {"label", "kind", "name", "weights_sha256", "config_sha256"}
    if written.name is None:
        assert network.path and len(network.weights_sha256) == 64
    else:
        assert network.path is None and network.repo.count("/") == 1


def test_auto_is_the_embedded_network_beside_the_embedded_clip_and_else_what_the_method_prefers():
    embedded = [resolve(each).method for each in AUTO]
    assert (embedded[0].sam.label, embedded[1].dino.label) == ("shapes_sam", "shapes_dino")
    others = [resolve([*each, "model=vit_b16"]) for each in AUTO]
    assert (others[0].method.sam.label, others[1].method.dino.label) == ("sam_vit_h", "dinov2_b14")
    with pytest.raises(UserError, match=r"method\.sam=auto: .* prefers none"):
        choose("sam", "auto", BackboneNames(), others[0].model)


def test_a_network_that_only_a_propagation_needs_is_the_run_s():
    run = resolve(["benchmark=voc20", "model=vit_b16", "method=lposs"])
    assert [each.label for each in run.method.networks] == ["dino_b16"]
    assert run.backbones.dino == run.method.dino and run.backbones.sam is None
    plain = resolve(["benchmark=voc20", "model=vit_b16", "method=lposs", "method.propagate=null"])
    assert not plain.method.networks and plain.backbones.dino is None
    assert resolve(["benchmark=shapes", "method=lposs"]).method.dino.label == "shapes_dino"


def test_a_run_without_second_networks_says_nothing_of_them():
    text = resolve(["benchmark=shapes", "method=cliptrase"]).text
    assert not {"backbones", "sam:", "dino:", "source"} & set(text.split())


def test_a_network_in_a_folder_is_known_by_its_content(tmp_path):
    """Its path is no part of the identity: the embedded network read from elsewhere."""
    source = described("shapes_sam").path
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(f"{source}/{name}")
    here = resolve([*SAM, f"method.sam=local-dir:{tmp_path}"])
    usual = resolve(SAM)
    assert here.method.sam.key == usual.method.sam.key
    assert str(tmp_path) not in json.dumps(here.identity)


def test_eps_follows_the_patches_of_the_network_that_is_clustered():
    regions = resolve(DINO).method.regions  # 224 over patches of 14
    assert (round(regions.eps, 9), regions.min_samples) == (0.8, 4)
    regions = resolve([*DINO, "image_size=336"]).method.regions
    assert (round(regions.eps, 9), regions.min_samples) == (1.2, 9)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([*SAM, "method.sam=null"], ["method.regions.kind=sam", "method.sam="]),
        ([*DINO, "method.dino=null"], ["correlation.source=dino", "method.dino="]),
        ([*LAVG, "method.dino=null"], ["correlation.source=dino", "method.dino="]),
        ([*LAVG, "method.regions.cut.threshold=1"], ["cut.threshold=1", "-1 or more"]),
        ([*LAVG, "method.regions.cut.most=0"], ["cut.most=0", "1 or more"]),
        ([*LAVG, "method.regions.kind=prototypes"], ["method.regions.cut=…", "leave it out"]),
        ([*SAM, "method.regions.kind=panoptic_cut"], ["method.regions.sam=…", "method=lavg"]),
        ([*LAVG, "method.regions.vote=hard", "protocol=slide"], ["vote=hard", "soft"]),
        ([*SAM, "method.sam=sam_vit_hh"], ["method.sam=sam_vit_hh", "sam_vit_h"]),
        ([*SAM, "method.sam=dino_b8"], ["method.sam=dino_b8", "timm", "sam_vit_b"]),
        ([*SAM, "method.regions.sam.points=0"], ["method.regions.sam.points=0", "1 or more"]),
        ([*SAM, "method.regions.sam.threshold=1e9"], ["threshold=1e9", "from -100 to 100"]),
        ([*SAM, "method.regions.sam.threshold=nan"], ["threshold=nan", "from -100 to 100"]),
        ([*SAM, "method.regions.kind=prototypes"], ["method.regions.sam", "method=cliptrase,"]),
        ([*SAM, "method.sam=local-dir:"], ["names no folder", "local-dir:DIR"]),
        ([*SAM, f"method.sam=local-dir:{__file__}"], ["a file; name its folder"]),
        ([*DINO, "method.regions.correlation.kind=inner_product"], ["source dino", "cosine"]),
        ([*DINO, "method.regions.correlation.feature=qk"], ["feature=qk", "qkv"]),
        ([*SAM, "method.sam=local-dir:/nowhere"], ["/nowhere/config.json", "no such file"]),
        (["benchmark=shapes", "method.sam=auto"], ["method.sam", "default"]),
        (
            [
                *SAM,
                "protocol=slide",
                "method.regions.vote=soft",
                "method.regions.sam.sees=original",
            ],
            ["sees=original", "protocol=crop"],
        ),
        (
            [*DINO, "method.regions.cluster=features"],
            ["method.regions.cluster=features", "source=dino"],
        ),
    ],
)
def test_what_cannot_be_is_one_message(overrides, words):
    with pytest.raises(UserError) as caught:
        resolve(overrides)
    for word in words:
        assert word in str(caught.value)


def test_sam_embeds_an_image_once_for_all_runs_of_a_pass(runs_of, make, tmp_path, monkeypatch):
    """Benchmarks over the same images share it, whatever their words; another view does not."""
    seen = []
    monkeypatch.setattr(graph, "embed", lambda sam, framed: seen.append(1) or real(sam, framed))
    runs = runs_of(
        [*SAM, *CLUSTERS],
        ["benchmark=shapes_bg", *SAM[1:], *CLUSTERS],
        [*SAM, *CLUSTERS, "method.regions.sam.points=4"],
        [*SAM, *CLUSTERS, "method.regions.sam.multimask=true"],
        ["benchmark=shapes", "method=cliptrase"],
    )
    make(runs, tmp_path, workers=1)
    images, prompted = 6, sum(run.method.sam is not None for run in runs.values())
    counted = prompted - 1  # flops, of each run on one image alone; two have equally many names
    assert len(seen) == images + counted


@pytest.fixture(scope="module")
def company(runs_of, make, tmp_path_factory):
    """The folders of runs of all networks, made in one pass."""
    others = ["benchmark=shapes_bg", "method=cliptrase"], [*COARSE, "method.regions.sam.points=4"]
    return make(runs_of(*ALONE, SAM, *others), tmp_path_factory.mktemp("company"), workers=2)


@pytest.mark.parametrize("overrides", ALONE)
def test_a_run_is_the_same_alone_in_company_and_in_batches(
    overrides, company, runs_of, make, tmp_path
):
    (alone,) = make(runs_of(overrides), tmp_path / "alone", workers=1).values()
    assert contents(company[alone.name]) == contents(alone)
    batched = make(runs_of(overrides), tmp_path / "batches", batched=True, batch_size=3)
    assert np.array_equal(
        np.load(batched[alone.name] / "confusion.npz")["confusion"],
        np.load(alone / "confusion.npz")["confusion"],
    )


def test_what_a_network_sees_is_what_clip_got():
    clip = load_clip(resolve(SAM).model)
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(clip.denormalise(clip.normalise(values)), values)
    assert clip.denormalise(torch.zeros(1, 3, 16, 16)).std() < 20  # padding: the mean colour


def test_a_pass_without_them_imports_neither_transformers_nor_timm_nor_what_clusters():
    """open_clip imports two of them wherever they are installed, unless it is told that they are
    not; scikit-learn takes a second, and unsupervised runs alone need it."""
    code = (
        "import sys, cliptrase, cliptrase.cli, cliptrase.plan, cliptrase.pipeline.estimate\n"
        "import cliptrase.model.lean, cliptrase.evaluate.passes, cliptrase.segmenter\n"
        "import cliptrase.publish.results\n"
        "from cliptrase.model.load import load_clip\n"
        "load_clip(cliptrase.config.resolve(['benchmark=shapes']).model)\n"
        "print({'timm', 'transformers', 'sklearn', 'scipy.optimize'} & {*sys.modules})\n"
        "import timm, transformers\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()", done.stderr
