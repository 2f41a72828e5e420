"""Regions without words: what is kept of them, how clusters get classes, and what is refused."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch

from cliptrase import config
from cliptrase.data import open_dataset
from cliptrase.data.read.crop import crop_image, crop_label
from cliptrase.errors import UserError
from cliptrase.evaluate import passes
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.evaluate.graph import Graph
from cliptrase.model.load import load_clip
from cliptrase.runs import code, finished, scoring, unsupervised
from cliptrase.runs.counts import RegionCounts
from cliptrase.runs.finished import status
from cliptrase.runs.metrics import class_counts, scores
from cliptrase.segment import ways
from cliptrase.segment.descriptors import described

SIZE = 112
FINE = ["method.regions.eps=0.5", "method.regions.min_samples=1"]  # more regions than clusters
RUN = ["benchmark=shapes", "method=cliptrase_unsupervised", "protocol.rule=mmseg", *FINE]
FILES = (*finished.SEALED, finished.REGIONS)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def alone(runs_of, make, tmp_path_factory):
    """The folder of the run, made by itself."""
    (folder,) = make(runs_of(RUN), tmp_path_factory.mktemp("alone")).values()
    return folder


def regions_of(folder):
    with np.load(folder / finished.REGIONS, allow_pickle=False) as file:
        return RegionCounts(**file)


def planted(g, image=None, d=None, ids=2):
    """Regions of these pixels by class (R, K)."""
    g = np.array(g, np.int32)
    image = np.zeros(len(g), np.int32) if image is None else np.array(image, np.int32)
    d = np.eye(len(g), dtype=np.float32) if d is None else np.array(d, np.float32)
    names = np.array([str(index) for index in range(ids)])
    return RegionCounts(names, np.zeros(ids, bool), image, g.sum(axis=1, dtype=np.int32), g, d)


# --- clusters and classes -------------------------------------------------------------------------


def test_pixels_of_clusters_by_class():
    random = np.random.default_rng(1)
    clusters, g = random.integers(0, 5, 40), random.integers(0, 9, (40, 3)).astype(np.int32)
    shared = unsupervised.shared_pixels(clusters, g, 6)
    expected = [
        [sum(int(g[r, k]) for r in range(40) if clusters[r] == c) for k in range(3)]
        for c in range(6)
    ]
    assert shared.tolist() == expected and shared[5].sum() == 0


def test_each_cluster_gets_the_class_that_all_together_hit_most_with():
    random = np.random.default_rng(2)
    for clusters in (4, 5):  # of the fifth nothing is predicted
        for _ in range(50):
            shared = random.integers(0, 50, (clusters, 4))
            hits = [
                sum(shared[cluster, k] for k, cluster in enumerate(chosen))
                for chosen in itertools.permutations(range(clusters), 4)
            ]
            classes = unsupervised.matched(shared)
            assert sorted(classes) == [0, 1, 2, 3, 4][:clusters]
            some = classes < 4
            assert shared[some, classes[some]].sum() == max(hits)


def test_pixels_are_matched_and_not_ious():
    """A large class decides; the mean IoU of the other matching is higher."""
    shared = np.array([[100, 0], [90, 9]])
    assert unsupervised.matched(shared).tolist() == [0, 1]
    assert unsupervised.matched(np.array([[9, 9], [90, 9]])).tolist() == [1, 0]


def resolved(*more):
    return config.resolve([*RUN, "model=shapes_clip", *more])


def test_a_permuted_labelling_scores_100():
    """27 classes in three images, each in regions that look alike, in any order."""
    random = np.random.default_rng(3)
    centres = np.linalg.qr(random.normal(size=(32, 32)))[0][:27]
    of = random.permutation(np.repeat(np.arange(27), 3))
    d = centres[of] + 0.01 * random.normal(size=(81, 32))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    g = np.zeros((81, 27), np.int32)
    g[np.arange(81), of] = random.integers(1, 500, 81)
    run = resolved()
    found = scoring.result_of(run, planted(g, np.arange(81) // 27, d, ids=3), 1)
    assert np.array_equal(found.confusion, np.diag(g.sum(axis=0)))
    said = scoring.metrics(run, found)
    assert {said[name] for name in ("pAcc", "mAcc", "fwIoU", "mIoU")} == {100.0}
    assert said["ci"]["mIoU"] == [100.0, 100.0]


def test_a_large_region_counts_as_much_as_many_small_ones():
    """Weights are pixels: the same clusters as of as many regions of one pixel each."""
    angles = np.array([0.0, 0.5, 1.1, 1.6])
    d = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    together = {}
    for weights in ([1, 1, 1, 1], [30, 1, 1, 30], [1, 60, 1, 1], [60, 60, 1, 1]):
        g = np.array(weights)[:, None] * np.ones((1, 2), int)
        weighted = unsupervised.clustered(planted(g, d=d), 2)
        many = planted(np.ones((sum(weights), 2)), d=np.repeat(d, weights, axis=0))
        repeated = unsupervised.clustered(many, 2)
        first = repeated[np.cumsum([0, *weights[:-1]])]
        together[tuple(weights)] = (weighted == weighted[0]).tolist()
        assert (first == first[0]).tolist() == together[tuple(weights)]
    assert len(set(map(tuple, together.values()))) > 1, "weights decide"


def test_a_region_goes_to_the_centre_with_the_largest_cosine():
    """Not to the nearest centre: those of spread clusters are short."""
    from sklearn.cluster import KMeans

    random = np.random.default_rng(4)
    spread, tight = random.normal(size=(300, 3)), [3, 0, 0] + 0.2 * random.normal(size=(300, 3))
    d = np.concatenate([spread, tight])
    d = (d / np.linalg.norm(d, axis=1, keepdims=True)).astype(np.float32)
    means = KMeans(3, n_init=10, random_state=0).fit(d.astype(np.float64), sample_weight=[2] * 600)
    cosines = [
        [float(row @ centre / np.linalg.norm(centre)) for centre in means.cluster_centers_]
        for row in d.astype(np.float64)
    ]
    found = unsupervised.clustered(planted(np.ones((600, 2)), d=d), 3)
    assert found.tolist() == [row.index(max(row)) for row in cosines]
    assert (found != means.labels_).any()


def test_one_cluster_has_all_regions():
    regions = planted([[5], [7]], [0, 1])
    clusters = unsupervised.clustered(regions, 1)
    assert clusters.tolist() == [0, 0]
    matrix, counts = unsupervised.by_class(regions, np.zeros(2, int), surplus=False)
    assert matrix.tolist() == [[12]] and counts.tp.tolist() == [[5], [7]]


def test_fewer_regions_than_clusters():
    regions = planted(np.ones((3, 27)), ids=1)
    why = r"unsupervised\.clusters: 1 image with 3 regions cannot make 27 clusters; take more"
    with pytest.raises(UserError, match=why):
        scoring.result_of(resolved(), regions, 1)


@pytest.mark.parametrize("surplus", [False, True])
def test_counts_of_regions_are_those_of_their_pixels(surplus):
    """Pixel by pixel; a cluster without a class hits nothing, and its pixels stay in the truth."""
    random = np.random.default_rng(5)
    regions = planted(random.integers(0, 5, (30, 4)), random.integers(0, 6, 30), ids=6)
    classes = random.integers(0, 4 + surplus, 30)
    matrix, counts = unsupervised.by_class(regions, classes, surplus=surplus)
    expected = np.zeros((6, 4, 4 + surplus), int)
    for region in range(30):
        for k in range(4):
            for _ in range(regions.g[region, k]):
                expected[regions.image[region], k, classes[region]] += 1
    assert np.array_equal(matrix, expected.sum(axis=0))
    assert np.array_equal(counts.gt, expected.sum(axis=2))
    assert np.array_equal(counts.pred, expected.sum(axis=1)[:, :4])
    assert np.array_equal(counts.tp, np.diagonal(expected, axis1=1, axis2=2)[:, :4])
    for ours, by_image in zip(
        class_counts(matrix), (counts.tp, counts.gt, counts.pred), strict=True
    ):
        assert np.array_equal(ours, by_image.sum(axis=0))
    assert matrix.sum() == regions.g.sum()


def test_pixels_of_surplus_clusters_are_misses():
    matrix = np.array([[6, 0, 4], [0, 10, 0]])
    found = scores("mmseg", *class_counts(matrix))
    assert (found["pAcc"], found["mAcc"], found["mIoU"]) == (80.0, 80.0, 80.0)


# --- descriptors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True])
def test_a_descriptor_is_the_mean_of_its_patches(together, monkeypatch):
    """Of an image with clusters and noise, and of one without any cluster."""
    if together:
        monkeypatch.setattr(ways, "one_by_one", lambda device: False)
    generator = torch.Generator().manual_seed(0)
    patches = torch.nn.functional.normalize(torch.randn(2, 9, 5, generator=generator), dim=-1)
    clusters = torch.tensor([[0, 0, 1, -1, 1, 0, 2, 2, -1], [-1] * 9])
    regions = torch.full((2, 6, 6), -1)
    regions[0] = torch.randint(0, 3, (6, 6), generator=generator)
    before = regions.clone()
    found = described(patches, (3, 3), clusters, np.array([3, 0]), regions)
    assert torch.equal(regions, before)
    assert torch.equal(found.regions[0], regions[0]) and not found.regions[1].any()
    values, labels = patches.double().numpy(), clusters.numpy()
    for number in range(3):
        mean = np.mean([values[0, n] for n in range(9) if labels[0, n] == number], axis=0)
        ours = found.descriptors[0][number].numpy()
        assert np.allclose(ours, mean / np.linalg.norm(mean), atol=1e-6)
    assert [len(each) for each in found.descriptors] == [3, 1]
    upsampled = torch.nn.functional.interpolate(
        patches[1].T.unflatten(1, (3, 3))[None], size=(6, 6), mode="bilinear"
    )[0].mean(dim=(1, 2))
    mean = (upsampled / upsampled.norm()).numpy()
    assert np.allclose(found.descriptors[1][0].numpy(), mean, atol=1e-6)


def test_what_is_kept_of_regions(alone, runs_of, data):
    """Of each image of the pass, step by step: pixels, pixels by class, descriptors."""
    ((name, run),) = runs_of(RUN).items()
    assert alone.name == name
    kept, clip = regions_of(alone), load_clip(run.model, torch.device("cpu"))
    assert kept.d.dtype == np.float32 and kept.g.shape[1] == 27
    samples, lines = open_dataset(run, data), (finished.TABLES / "shapes_to_all.csv").read_text()
    table = np.array([int(line.split(",")[1]) for line in lines.split()[1:]])
    assert list(kept.ids) == samples.ids and not kept.skipped.any()
    for position, sample in enumerate(samples):
        pixels = clip.normalise(crop_image(sample.image, SIZE)[None])
        with single_threaded_pool(1), torch.inference_mode():  # as a pass
            graph = Graph(clip, pixels)
            clusters, regions = graph.clusters(run.method)[0], graph.regions(run.method)[0].numpy()
            patches = graph.patches(run.method)[0].double().numpy()
        truth = table[crop_label(sample.label, SIZE)]
        seen = [number for number in range(clusters.max() + 1) if (regions == number).any()]
        own = kept.image == position
        assert kept.n[own].tolist() == [int((regions == number).sum()) for number in seen]
        assert kept.n[own].sum() == SIZE**2
        counts = np.array([np.bincount(truth[regions == number], minlength=27) for number in seen])
        assert np.array_equal(kept.g[own], counts)
        means = [patches[clusters.numpy() == number].mean(axis=0) for number in seen]
        means = np.array(means) / np.linalg.norm(means, axis=1, keepdims=True)
        assert np.allclose(kept.d[own], means, atol=1e-5)


def test_an_image_without_clusters_is_one_region(runs_of, make, tmp_path):
    run = ["benchmark=shapes", RUN[1], "method.regions.eps=1e-6", "method.regions.min_samples=9"]
    with pytest.raises(UserError, match="6 images with 6 regions cannot make 27 clusters"):
        make(runs_of(run), tmp_path)


# --- a pass ---------------------------------------------------------------------------------------


def test_a_run_is_whole_and_follows_from_its_regions(alone, runs_of, data):
    (run,) = runs_of(RUN).values()
    assert status(run, alone.parent, data).finished
    assert {path.name for path in alone.iterdir()} == {*finished.FILES, finished.REGIONS}
    said = json.loads((alone / "provenance.json").read_text())
    assert set(said["files"]) == set(FILES) and said["versions"]["scikit-learn"]
    found = scoring.read_result(alone, run, 1)
    with np.load(alone / "confusion.npz") as file:
        assert np.array_equal(file["confusion"], found.confusion)
    assert found.confusion.sum() == regions_of(alone).g.sum()
    counts = scoring.read_counts(alone)
    for saved, again in zip(vars(counts).values(), vars(found.counts).values(), strict=True):
        assert np.array_equal(saved, again)
    metrics = json.loads((alone / "metrics.json").read_text())
    assert metrics["rule"] == "mmseg" and metrics["images"] == 6 and metrics["flops"] > 0
    assert 0 < metrics["ci"]["mIoU"][0] <= metrics["mIoU"] <= metrics["ci"]["mIoU"][1] < 100


def test_a_run_is_the_same_in_company_in_threads_and_in_batches(alone, runs_of, make, tmp_path):
    more = [*RUN, "method.unsupervised.clusters=30"]
    company = runs_of(["benchmark=shapes", "method=cliptrase"], RUN, more)
    folders = make(company, tmp_path / "company", workers=3)
    assert contents(folders[alone.name]) == contents(alone)
    (other,) = (folder for name, folder in folders.items() if "clusters-30" in name)
    assert (other / finished.REGIONS).read_bytes() == contents(alone)[finished.REGIONS]
    with np.load(other / "confusion.npz") as file:
        assert file["confusion"].shape == (27, 28) and file["confusion"][:, 27].any()
    (folder,) = make(runs_of(RUN), tmp_path / "batches", batched=True, batch_size=1).values()
    assert contents(folder) == contents(alone)


def test_a_gpu_s_batches_give_nearly_the_same_regions(alone, runs_of, make, tmp_path, monkeypatch):
    """The path that a GPU takes, on the CPU."""
    monkeypatch.setattr(ways, "one_by_one", lambda device: False)
    (folder,) = make(runs_of(RUN), tmp_path, batched=True, batch_size=4).values()
    kept, other = regions_of(alone), regions_of(folder)
    assert np.array_equal(kept.image, other.image)
    assert np.abs(kept.g - other.g).sum() / 2 <= 1e-4 * kept.g.sum()
    assert np.allclose(kept.d, other.d, atol=1e-4)


def test_a_pass_that_was_killed_goes_on_to_the_same_bytes(
    alone, runs_of, make, tmp_path, monkeypatch
):
    """The file of counts holds the regions of the images before."""
    runs, seen, fatal = runs_of(RUN, ["benchmark=shapes", "method=clip"]), [], {4}
    load = passes.Loader.__call__

    def killed(self, position):
        if position in fatal:
            raise KeyboardInterrupt
        seen.append(position)
        return load(self, position)

    monkeypatch.setattr(passes.Loader, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        make(runs, tmp_path, save_every=1)
    assert (tmp_path / ".partial.npz").exists() and not (tmp_path / alone.name).exists()
    seen.clear(), fatal.clear()
    folders = make(runs, tmp_path, save_every=1)
    assert contents(folders[alone.name]) == contents(alone)
    assert seen == [4, 5], "the images before are not seen again, nor one to count operations"


def test_too_few_regions_cost_only_their_own_run(runs_of, make, tmp_path):
    few = ["limit=1", "benchmark=shapes"]
    runs = runs_of([RUN[1], *few], ["method=clip", *few])
    with pytest.raises(UserError, match=r"1 image with .* cannot make 27 clusters"):
        make(runs, tmp_path)
    made = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert made == {name for name in runs if ".clip." in name}


@pytest.mark.parametrize(
    ("lost", "needed"),
    [
        ("metrics.json", "rescore"),
        ("confusion.npz", "rescore"),
        ("per_image.npz", "rescore"),
        ("regions.npz", "predict"),
    ],
)
def test_what_is_lost_is_made_of_the_regions(lost, needed, alone, runs_of, make, data, tmp_path):
    folder = shutil.copytree(alone, tmp_path / alone.name)
    runs = runs_of(RUN)
    (run,) = runs.values()
    (folder / lost).write_bytes(b"PK")
    found = status(run, tmp_path, data)
    assert (found.state, found.reason) == (needed, f"{lost} is not what was written")
    make(runs, tmp_path)
    assert contents(folder) == contents(alone)


def test_the_matching_is_scoring_code():
    files = {path.name for path in code.closure(code.PREDICTS)}
    assert "descriptors.py" in files and "unsupervised.py" not in files
    assert "unsupervised.py" in {path.name for path in code.closure(code.SCORES)}


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["protocol=slide", "image_size=224"], "method=cliptrase_unsupervised: .*protocol=crop"),
        (["method.unsupervised.clusters=26"], "clusters=26: fewer than the 27 classes .*take K or"),
        (["method.unsupervised=null"], "unsupervised=null: without it words decide; take method="),
        (["method.unsupervised.clusters=0"], r"clusters=0: must be K \(as many as"),
        (["method.unsupervised.clusters=many"], "clusters=many: must be K"),
        (["method.unsupervised.fit=train"], "fit=train: unknown value; .*val"),
        (["method.regions.vote=hard"], "vote=hard: with method.unsupervised .*take none"),
        (["method.cls_logits=true"], "cls_logits=true: with method.unsupervised .*take false"),
        (["method.regions=null"], "regions=null: method.unsupervised clusters regions"),
    ],
)
def test_settings_that_do_not_go_together(more, message):
    with pytest.raises(UserError, match=message):
        resolved(*more)


def test_a_background_is_a_class_too():
    overrides = ["benchmark=shapes_bg", RUN[1], "method.unsupervised.clusters=20"]
    with pytest.raises(UserError, match="fewer than the 21 classes"):
        config.resolve(overrides)


def test_no_picture_is_segmented_with_it():
    with pytest.raises(UserError, match=r"ground truth of a whole benchmark.*another method"):
        config.resolve_settings(["method=cliptrase_unsupervised", "model=shapes_clip"])


def test_the_identity_of_other_methods_does_not_know_it():
    assert "unsupervised" not in config.resolve(["method=cliptrase"]).identity["method"]
    assert resolved().identity["method"]["unsupervised"] == {"clusters": "K"}
