"""Passes in bf16 and fp16: the same bytes for any number of threads, every method, any protocol."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
import torch
from tests.objects import changed

from cliptrase import config
from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.model.backbones import load_networks
from cliptrase.model.load import load_clip
from cliptrase.runs import finished

RUN = ["benchmark=shapes_bg", "method=cliptrase"]
SLIDE = ["protocol=slide", "protocol.short_side=160", "protocol.stride=48", "limit=1"]
BESIDE = {"outside", "predictions"}
BESIDE |= {"cliptrase_sam", "cliptrase_dinov2", "cliptrase_unsupervised"}
# files of the user's, and methods whose part of CLIP is that of cliptrase, are beside these
METHODS = sorted({file.stem for file in (config.files.CONF / "method").glob("*.yaml")} - BESIDE)
LOW = ["bf16", "fp16"]


def run_of(method, *overrides):
    """A run of the embedded model, whose blocks are as many as every method needs."""
    shared = ["benchmark=shapes_bg", "model=shapes_clip", "image_size=112"]
    return config.resolve([*shared, f"method={method}", *overrides])


def contents(folder):
    """What must be equal between two makings of a run."""
    return {
        name: (folder / name).read_bytes() for name in finished.FILES if name != "provenance.json"
    }


def counted(folder):
    return np.load(folder / "confusion.npz")["confusion"]


@pytest.fixture(scope="module", params=LOW)
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def alone(precision, runs_of, make, tmp_path_factory):
    runs = runs_of([*RUN, f"model.precision={precision}"])
    (folder,) = make(runs, tmp_path_factory.mktemp(precision)).values()
    return folder


def test_a_run_is_the_same_with_any_number_of_threads_and_in_company(
    alone, precision, runs_of, make, tmp_path
):
    low = f"model.precision={precision}"
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        company = runs_of([*RUN, low], ["benchmark=shapes", "method=naclip", low])
        folders = make(company, tmp_path / "company", workers=5)
        batch = make(
            runs_of([*RUN, low]), tmp_path / "batch", workers=2, batched=True, batch_size=1
        )
    finally:
        torch.set_num_threads(before)
    assert contents(folders[alone.name]) == contents(alone)
    assert contents(batch[alone.name]) == contents(alone)


def test_it_says_its_precision_costs_as_much_and_shares_the_words(
    alone, precision, runs_of, make, data, tmp_path
):
    assert f"precision: {precision}\n" in (alone / "config.yaml").read_text()
    texts = sorted((data / "text_features").iterdir())
    (plain,) = make(runs_of(RUN), tmp_path).values()
    assert sorted((data / "text_features").iterdir()) == texts
    assert "precision" not in (plain / "config.yaml").read_text()
    flops = [json.loads((at / "metrics.json").read_text())["flops"] for at in (plain, alone)]
    assert flops[0] == flops[1] > 0
    differ = np.abs(counted(plain) - counted(alone)).sum() / 2
    assert differ <= 0.05 * counted(plain).sum()


def test_runs_of_two_precisions_share_no_pass(runs_of, make, tmp_path):
    runs = runs_of(RUN, [*RUN, "model.precision=bf16"])
    assert len(runs) == 2
    with pytest.raises(UserError, match="the runs of a pass must share the model"):
        make(runs, tmp_path)


@pytest.mark.parametrize("protocol", ["crop", "slide"])
def test_every_method_runs_in_bf16(protocol, make, tmp_path):
    """Few pixels fall to another class: those whose two best words are nearly equal, and regions
    in which two classes have nearly as many."""
    own = SLIDE if protocol == "slide" else ["limit=2"]
    # a hard vote has no logits to average, so that slide votes softly or not at all
    names = [name for name in METHODS if protocol == "crop" or name != "cliptrase_paper"]
    made = []
    for low in ([], ["model.precision=bf16"]):
        some = [run_of(name, *own, *low) for name in names]
        runs = {run.name: run for run in some}
        assert len(runs) == len(names)
        folders = make(runs, tmp_path / ("low" if low else "plain"))
        made.append([counted(folder) for folder in folders.values()])
    for name, plain, low in zip(names, *made, strict=True):
        assert plain.sum() == low.sum() > 0
        assert np.abs(plain - low).sum() / 2 <= 0.01 * plain.sum(), name


@pytest.mark.parametrize("precision", LOW)
@torch.inference_mode()
def test_features_of_every_method_stay_close_to_those_of_fp32(precision):
    """Unit vectors and cosines; the bounds are those of tests/unit/model/test_precision.py."""
    model = run_of("clip").model
    plain, low = (load_clip(changed(model, {"precision": each})) for each in ("fp32", precision))
    pixels = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    needed = chain(*(run_of(name).method.networks for name in METHODS))
    networks = load_networks(needed, "cpu")
    graphs = [Graph(clip, pixels, networks=networks) for clip in (plain, low)]
    for name in METHODS:
        method = run_of(name).method
        ours, theirs = (graph.patches(method) for graph in graphs)
        away = (ours - theirs).norm(dim=-1)
        assert 0 < away.max() < {"bf16": 0.03, "fp16": 0.004}[precision], name
    w, moved = (graph.correlation(11, "cosine") for graph in graphs)
    assert w.dtype == moved.dtype == torch.float32
    assert 0 < (w - moved).abs().max() < {"bf16": 0.03, "fp16": 0.004}[precision]
