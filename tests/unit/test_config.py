"""conf/ composes as Hydra does, every value is checked, identity holds what changes a number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from cliptrase import config
from cliptrase.config.compose import GROUPS
from cliptrase.errors import UserError

PAPER = "model=vit_b16"
ORACLE = "method.attention.within=truth"


def group_files():
    return [
        f"{group}={file.stem}"
        for group in GROUPS
        for file in sorted((config.files.CONF / group).glob("*.yaml"))
    ]


def hydra(overrides):
    with initialize_config_dir(str(config.files.CONF), version_base="1.3"):
        composed = hydra_compose("evaluate", overrides=overrides)
        return OmegaConf.to_container(composed)


@pytest.mark.parametrize("choice", group_files())
def test_every_file_composes_like_hydra(choice):
    assert config.compose([choice]) == hydra([choice])


@pytest.mark.parametrize(
    "overrides",
    [
        ["method.regions.eps=0.5", "method.regions.min_samples=5"],
        ["method.regions.eps=1e-1", "limit=null", "device=cuda:1"],
        ["method.attention.terms=[qk,vv]", "method.cls_logits=true"],
        [
            "benchmark=folder",
            "benchmark.images=/a b/c",
            "benchmark.labels='/d'",
            "vocabulary=x.txt",
        ],
        ["method=clip", "method.attention.residual=false", "out=/tmp/x-1", "image_size=336"],
        ["method.regions=null", "benchmark=voc20", "model=local", "model.path=../here"],
        ["model=open_clip", "model.name=ViT-B-32", "model.pretrained=laion2b_s34b_b79k"],
    ],
)
def test_overrides_are_read_as_hydra_reads_them(overrides):
    assert config.compose(overrides) == hydra(overrides)


def benchmarks():
    return [name for name in config.names("benchmark") if name != "folder"]


@pytest.mark.parametrize("benchmark", benchmarks())
def test_every_benchmark_resolves_with_a_vocabulary_for_its_labels(benchmark):
    run = config.resolve([f"benchmark={benchmark}", PAPER])
    labels = run.benchmark.labels
    table = Path(config.__file__).parents[1] / "data" / "labels" / f"{labels.map}.csv"
    classes = {int(line.split(",")[1]) for line in table.read_text().splitlines()[1:]}
    count = run.vocabulary.classes.count
    assert set(range(count)) <= classes
    if benchmark != "coco_object":  # the released definition leaves 91 stuff classes above the 80
        assert classes == set(range(count))
    assert (run.vocabulary.background is None) == (labels.background is None)
    assert labels.ignore == (65535 if count > 255 else 255)


def test_the_paper_counts():
    counts = {
        name: config.resolve([f"benchmark={name}", PAPER]).vocabulary for name in benchmarks()
    }
    assert {name: v.classes.count for name, v in counts.items() if "shapes" not in name} == {
        "coco_object": 80,
        "coco_object_standard": 80,
        "voc21": 20,
        "voc21_standard": 20,
        "pc60": 59,
        "coco_stuff": 171,
        "coco27": 27,
        "cityscapes27": 27,
        "cityscapes19": 19,
        "voc20": 20,
        "pc59": 59,
        "pc459": 459,
        "ade150": 150,
        "ade847": 847,
    }
    assert counts["voc21"].background.count == 33
    assert counts["coco_object"].background.count == 107
    assert counts["voc20"].templates.count == 80


@pytest.mark.parametrize(
    ("size", "expected"),
    [(224, (0.7, 3)), (336, (1.1, 7)), (448, (0.7 * 2, 12)), (112, (0.35, 2))],
)
def test_eps_and_min_samples_follow_the_patch_count(size, expected):
    regions = config.resolve(["benchmark=voc20", f"image_size={size}"]).method.regions
    assert regions.eps == pytest.approx(expected[0], abs=1e-12)
    assert regions.min_samples == expected[1]


def test_patch_14_counts_its_own_patches():
    run = config.resolve(["benchmark=voc20", "model=vit_l14", "image_size=336"])
    regions = run.method.regions
    assert regions.eps == pytest.approx(0.7 * (576 / 196) ** 0.5)
    assert regions.min_samples == 9


@pytest.mark.parametrize(
    ("benchmark", "method", "expected"),
    [
        ("voc20", "cliptrase", True),
        ("voc21", "cliptrase", False),
        ("voc20", "clip", False),
        ("voc20", "sclip", False),
    ],
)
def test_cls_logits_are_automatic_for_cliptrase_on_voc20_only(benchmark, method, expected):
    run = config.resolve([f"benchmark={benchmark}", f"method={method}", PAPER])
    assert run.method.cls_logits is expected


@pytest.mark.parametrize("without", ["method.regions.vote=none", "method.regions=null"])
def test_scr_alone_keeps_the_automatic_cls_logits_however_it_is_written(without):
    run = config.resolve(["benchmark=voc20", PAPER, without])
    assert run.method.cls_logits is True


def test_identity_ignores_what_cannot_change_a_number(tmp_path):
    plain = config.resolve(["benchmark=voc20"])
    places = [f"out={tmp_path}", "data=/d"]
    beside = ["device=cpu", "workers=2", "batch_size=1", "save_maps=4", *places]
    moved = config.resolve(["benchmark=voc20", *beside])
    assert plain.name == moved.name
    assert plain.text == moved.text


@pytest.mark.parametrize(
    "override",
    [
        "limit=3",
        "image_size=336",
        "method.regions.eps=0.71",
        "method.cls_logits=false",
        "method=sclip",
        "vocabulary=pc59",
        "protocol.rule=mmseg",
        "model=vit_l14",
        "benchmark=voc21",
    ],
)
def test_identity_holds_what_changes_a_number(override):
    base = ["benchmark=voc20", "image_size=224"]
    changed = config.resolve([*base, override])
    assert config.resolve(base).sha256 != changed.sha256


def test_the_same_point_written_twice_is_one_run():
    automatic = config.resolve(["benchmark=voc20"])
    written = config.resolve(
        ["benchmark=voc20", "method.regions.eps=0.7", "method.regions.min_samples=3"]
    )
    assert automatic.name == written.name
    assert yaml.safe_load(written.text)["method"]["regions"]["eps"] == 0.7


def test_a_users_vocabulary_is_known_by_its_words_not_its_path(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.txt").write_text("cat\nsofa\n")
    runs = [
        config.resolve(["benchmark=voc20", f"vocabulary={tmp_path / f / 'mine.txt'}"]) for f in "ab"
    ]
    assert runs[0].name == runs[1].name
    (tmp_path / "b" / "mine.txt").write_text("cat\nsofas\n")
    other = config.resolve(["benchmark=voc20", f"vocabulary={tmp_path / 'b' / 'mine.txt'}"])
    assert other.name != runs[0].name


@pytest.fixture
def folder_model(tmp_path):
    """An open_clip folder, as far as a run's name looks at it."""
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"weights")
    settings = {"model_cfg": {"quick_gelu": True, "vision_cfg": {"patch_size": 16}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    return tmp_path


def test_runs_made_before_the_peers_keep_their_names():
    """A key that a method does not have is no part of its identity."""
    before = {
        ("clip", 224): "voc20.clip.vit_b16.224.dcd9e6582b",
        ("clip", 336): "voc20.clip.vit_b16.336.b4acd9a58c",
        ("sclip", 224): "voc20.sclip.vit_b16.224.4cd88e9023",
        ("sclip", 336): "voc20.sclip.vit_b16.336.c8676a876e",
        ("cliptrase", 224): "voc20.cliptrase.vit_b16.224.b2da9fea53",
        ("cliptrase", 336): "voc20.cliptrase.vit_b16.336.d98f5f82e5",
    }
    for (method, size), name in before.items():
        run = config.resolve(["benchmark=voc20", PAPER, f"method={method}", f"image_size={size}"])
        assert run.name == name


def test_an_optional_key_counts_where_it_is_set():
    def run(*overrides):
        return config.resolve(["benchmark=voc20", PAPER, "method=naclip", *overrides])

    plain = run().name
    assert run("method.attention.omega=5.0").name == plain
    assert ".omega-2.5." in run("method.attention.omega=2.5").name
    without = run("method.attention.omega=null")
    assert "omega" not in without.identity["method"]["attention"]
    assert ".omega-none." in without.name


def test_an_oracle_has_a_name_and_an_identity_of_its_own():
    keys = {"within_mixed": "any", "within_cls": "kept"}
    names = set()
    for more in ({}, *({key: value} for key, value in keys.items()), keys):
        changes = [f"method.attention.{key}={value}" for key, value in more.items()]
        run = config.resolve(["benchmark=voc20", PAPER, ORACLE, *changes])
        attention = run.identity["method"]["attention"]
        assert {key: attention[key] for key in attention if "within" in key} == {
            "within": "truth",
            **more,
        }
        assert "within-truth" in run.name and "softmax" not in attention
        names.add(run.name)
    assert len(names) == 4


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("open_clip_model.safetensors", "other weights"),
        (
            "open_clip_config.json",
            '{"model_cfg": {"quick_gelu": false, "vision_cfg": {"patch_size": 16}}}',
        ),
    ],
)
def test_a_local_model_is_its_weights_and_its_configuration_never_its_path(
    folder_model, tmp_path_factory, file, change
):
    def name_of(folder):
        return config.resolve(["benchmark=voc20", "model=local", f"model.path={folder}"]).name

    before = name_of(folder_model)
    copied = tmp_path_factory.mktemp("copy")
    for source in folder_model.iterdir():
        (copied / source.name).write_bytes(source.read_bytes())
    assert name_of(copied) == before
    (folder_model / file).write_text(change)
    assert name_of(folder_model) != before


@pytest.mark.parametrize("name", ["😀", os.fsdecode(b"\xff"), 'a "quote"'])
def test_a_local_folder_may_have_any_name(name):
    overrides = config.picture_overrides(f"local-dir:/{name}", "clip", "cpu", None, [])
    assert config.compose(overrides)["model"]["path"] == f"/{name}"


def test_a_vocabulary_may_have_a_name_that_is_not_utf8(tmp_path):
    words = tmp_path / os.fsdecode(b"w\xff.txt")
    words.write_text("\n".join("abcdefghijklmnopqrst"))
    run = config.resolve(["benchmark=voc20", "model=shapes_clip", f"vocabulary={words}"])
    assert r".vocabulary-w\udcff." in run.name and run.text.encode()


def test_weights_given_as_a_file_are_known_by_their_bytes(tmp_path):
    def run():
        weights = f"model.pretrained={tmp_path / 'w.pt'}"
        return config.resolve(
            ["benchmark=voc20", "model=open_clip", "model.name=ViT-B-32", weights]
        )

    (tmp_path / "w.pt").write_bytes(b"one")
    first = run()
    assert str(tmp_path) not in first.text
    assert first.model.path == str(tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes(b"two")
    assert run().name != first.name


def test_a_folder_named_by_a_number_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l").mkdir()
    labels = ["benchmark.labels=l", "benchmark.classes=voc20"]
    with pytest.raises(UserError, match="no mask"):
        config.resolve(["benchmark=folder", "benchmark.images=2012", *labels])
    assert config.resolve(["benchmark=voc20", "out=5"]).out == "5"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=cliptras"], ["unknown method 'cliptras'", "did you mean 'cliptrase'"]),
        (["benchmark=voc2"], ["unknown benchmark 'voc2'", "did you mean", "voc21_standard"]),
        (["method=../method/clip"], ["unknown method"]),
        (["method.regions.ep=1"], ["method.regions.ep", "did you mean 'eps'"]),
        (["method=clip", "method.regions.eps=1"], ["'method.regions' is null"]),
        (["imagesize=1"], ["did you mean 'image_size'"]),
        (["image_size=230"], ["image_size=230", "224 or 240"]),
        (["image_size=big"], ["image_size=big", "whole number"]),
        (["method.regions.eps=0"], ["method.regions.eps=0", "greater than 0"]),
        (["method.regions.eps=-1"], ["greater than 0"]),
        (["method.regions.eps=nan"], ["method.regions.eps=nan"]),
        (["method.regions.eps=true"], ["method.regions.eps=true"]),
        (["method.regions.min_samples=0"], ["1 or more"]),
        (["method.regions.min_samples=2.5"], ["whole number"]),
        (["method.regions.median=4"], ["odd"]),
        (["method.regions.denoise=clss"], ["method.regions.denoise=clss", "'cls'"]),
        (["method.attention.terms=[qq,qq]"], ["without doubles"]),
        (["method.attention.terms=[qz]"], ["unknown term 'qz'"]),
        (["method.attention.kind=identty"], ["kind=identty", "did you mean 'identity'"]),
        (["method.attention.kind=identity"], ["identity compares nothing", "take []"]),
        (["method=maskclip", "method.attention.terms=[vv]"], ["terms=['vv']", "take []"]),
        (["method.attention.terms=[]"], ["terms=[]", "as [qq,kk,vv]"]),
        (["method=naclip", "method.attention.omega=0"], ["omega=0", "from 0.001 to 10000"]),
        (["method=naclip", "method.attention.kind=cosine"], ["omega=5", "take null"]),
        (["method=naclip", "method.attention.kind=gem"], ["kind=gem", "a residual and no FFN"]),
        (["method=resclip", "method.attention.early_share=1.1"], ["=1.1", "from 0 to 1"]),
        (["method=resclip", "method.attention.early_share=nan"], ["=nan", "from 0 to 1"]),
        (["method=resclip", "method.attention.residual=true"], ["the last block alone"]),
        (["method=resclip", "method.attention.first_block=11"], ["the last block alone"]),
        (["method=resclip", "method.attention.terms=[]"], ["terms=[]", "as [qq,kk,vv]"]),
        (
            ["method=resclip", "method.attention.kind=softmax", "method.attention.early_share=0.4"],
            ["early_share=0.4", "kind softmax does not read it; take 0.5"],
        ),
        (["method=sc_clip", "method.attention.outlier_quantile=-0.1"], ["=-0.1", "from 0 to 1"]),
        (["method=sc_clip", "method.attention.similarity_threshold=2"], ["=2", "from 0 to 1"]),
        (["method=sc_clip", "method.attention.cls_share=yes"], ["cls_share=", "from 0 to 1"]),
        (["method=sc_clip", "method.attention.terms=[kk]"], ["terms=['kk']", "take []"]),
        (["method=sc_clip", "method.attention.ffn=true"], ["the last block alone"]),
        (["method=sfp", "method.attention.most_outliers=0"], ["=0", "1 or more"]),
        (
            ["method=sfp", "method.attention.kind=sc_clip", "method.attention.most_outliers=5"],
            ["most_outliers=5", "kind sc_clip does not read it; take 10"],
        ),
        (["method=cliper", "method.attention.ffn=true"], ["the last block alone"]),
        (["method=cliper", "method.propagate=cliperr"], ["=cliperr", "did you mean 'cliper'"]),
        (
            ["method=cliper", "method.attention.kind=identity"],
            ["method.propagate=cliper", "kind=cliper", "take null"],
        ),
        (["method.propagate=cliper"], ["method.propagate is not written", "add the line"]),
        (["method=lposs", "method.dino=null"], ["method.propagate=lposs: needs method.dino="]),
        (["method=lposs", "method.dino=sam_vit_b"], ["method.dino=sam_vit_b", "not a ViT"]),
        (["method=lposs", "method.solver=cg"], ["method.solver=cg", "cg10"]),
        (
            ["method=lposs", "method.propagate=null", "method.solver=exact"],
            ["method.solver=exact: method.propagate=null solves no equations; take cg10"],
        ),
        (["method=clip_surgery", "method.attention.ffn=true"], ["method.attention.ffn=false"]),
        (["method=gem", "method.attention.terms=[qk,vv]"], ["take qq, kk, vv"]),
        (["method=gem", "method.attention.terms=qk"], ["terms=qk", "give a list"]),
        (["method.attention.omega=5"], ["method.attention.omega is not written", "add the line"]),
        (["method.attention.softmax=true"], ["softmax=true", "or kind cosine or inner_product"]),
        (["method.attention.within=thruth"], ["within=thruth", "did you mean 'truth'"]),
        (
            ["method.attention.within_cls=kept"],
            ["within_cls=kept", "within is null; take apart"],
        ),
        (
            ["method.attention.within_mixed=any"],
            ["within_mixed=any", "within is null; take majority"],
        ),
        *(
            (
                [f"method.attention.kind={kind}", ORACLE, *more],
                ["method.attention.within=truth", f"kind {kind} has no rows", "take null"],
            )
            for kind, more in (
                ("identity", ["method.attention.terms=[]"]),
                ("gem", ["method.attention.ffn=false"]),
                ("clip_surgery", ["method.attention.ffn=false"]),
            )
        ),
        (
            [
                "method.attention={kind: softmax, terms: [kk], first_block: 12, last_block: 12, "
                "residual: true, ffn: true, omega: 5, within: truth}"
            ],
            [
                "method.attention.within=truth",
                "method.attention.omega=5",
                "null for one of the two",
            ],
        ),
        (
            [ORACLE, "protocol=slide", "method.regions.vote=none"],
            ["method.attention.within=truth: it needs labels", "under protocol crop"],
        ),
        (["protocol.logit_scale=1e39"], ["logit_scale=1e39", "from 0.001 to 10000"]),
        (
            [
                "method.attention={kind: softmax, terms: [qq], first_block: 12, last_block: 12, "
                "residual: true, ffn: true, omga: 5}"
            ],
            ["unknown key 'method.attention.omga'", "did you mean 'omega'"],
        ),
        (["method.attention.first_block=0"], ["first_block=0"]),
        (["method.attention.first_block=12", "method.attention.last_block=11"], ["comes after"]),
        (["method.regions.correlation.block=13"], ["block=13"]),
        (
            ["model=shapes_clip", "method=clip_surgery", "method.attention.first_block=6"],
            ["first_block=6: a model of 6 blocks has the blocks 7 to 12"],
        ),
        (
            ["model=shapes_clip", "method.regions.correlation.block=1"],
            ["correlation.block=1: a model of 6 blocks has the blocks 7 to 12"],
        ),
        (["device=gpu"], ["device=gpu", "cuda"]),
        (["limit=0"], ["limit=0"]),
        (["+limit=3"], ["write key=value"]),
        (["limit"], ["write key=value"]),
        (["benchmark=folder"], ["benchmark.images is needed"]),
        (["model=local"], ["model.path is needed"]),
        (
            ["model=local", "model.path=/nowhere"],
            ["/nowhere: no such folder", "an open_clip folder"],
        ),
        (
            ["model=open_clip", "model.name=ViT-B16", "model.pretrained=x"],
            ["did you mean 'ViT-B-16'"],
        ),
        (["vocabulary=vok20"], ["'vok20'"]),
        (["out=null"], ["out=null", "a path"]),
        (["data=[1]"], ["data=[1]"]),
        (["method.attention=null"], ["method.attention=null", "kind, terms"]),
        (["method.regions=5"], ["method.regions=5", "vote"]),
        (["method.regions={}"], ["method.regions.vote is missing"]),
        (["method.regions.correlation=null"], ["method.regions.correlation is missing"]),
        (["benchmark.labels=null"], ["benchmark.labels=null", "map, ignore"]),
        (["benchmark.labels.map=null"], ["benchmark.labels.map=null: must be a name"]),
        (["image_size=224.0"], ["image_size=224.0: must be a whole number"]),
        (["benchmark.labels.background=ignore"], ["benchmark.labels.background=ignore", "ignored"]),
        (["benchmark.labels.background=[a]"], ["list of raw labels"]),
        (["benchmark.labels.ignore=70000"], ["255 or 65535"]),
        (["benchmark.cls_logits=5"], ["benchmark.cls_logits=5", "true or false"]),
        (["benchmark.cls_logits=auto"], ["benchmark.cls_logits=auto"]),
        (["benchmark.name=null"], ["benchmark.name=null"]),
        (["benchmark.dataset=folder"], ["benchmark.images is missing"]),
        (["model=local", "model.path=[5]"], ["model.path=[5]"]),
        (
            ["model=open_clip", "model.name=ViT-B-32", "model.pretrained=null"],
            ["model.pretrained=null"],
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_cure(overrides, words):
    with pytest.raises(UserError) as caught:
        config.resolve(["benchmark=voc20", *overrides])
    for word in words:
        assert word in str(caught.value)


def test_planning_imports_neither_torch_nor_hydra():
    code = (
        "import sys; from cliptrase import config, plan; plan.load('paper');"
        "heavy = {'torch', 'hydra', 'datasets', 'pandas', 'sklearn'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_of_conf_that_is_not_utf8_is_named(tmp_path, monkeypatch):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "bad.yaml").write_bytes(b"\xff\xfe")
    monkeypatch.setattr(config.files, "CONF", tmp_path)
    with pytest.raises(UserError, match=r"bad\.yaml: not valid YAML in UTF-8"):
        config.load("suite", "bad")


@pytest.mark.parametrize(
    "given", [None, 3, {"benchmark": "shapes"}, {"limit=3"}, [3], [None], "a=b"]
)
def test_overrides_from_python_are_a_list_of_texts(given):
    with pytest.raises(UserError, match=r"^overrides: .*give a list of words"):
        config.resolve(given)
