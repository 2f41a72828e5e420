"""benchmarks/growth.py: what it promises to write; no time is judged."""

from __future__ import annotations

import json

import pytest
from benchmarks import command, growth, growth_picture


def spread(value):
    return {"median": value, "min": 0.9 * value, "max": 1.1 * value}


def made_up():
    """As `growth` gives it: 2 ms an image, half a ms a class, 3 ms a cluster."""
    sizes = ((224, 10.0), (336, 30.0), (448, 80.0))
    return {
        "by_images": [{"images": n, "s": spread(0.002 * n)} for n in (8, 16, 32)],
        "by_classes": [
            {"classes": k, "ms": spread(9 + k / 2), "encoder_ms": spread(9), "ratio": spread(1.1)}
            for k in growth.CLASSES
        ],
        "by_size": [
            {
                "size": size,
                "patches": (size // 16) ** 2,
                "encoder_ms": spread(ms),
                "ms": spread(1.2 * ms),
                "ratio": spread(1.2),
            }
            for size, ms in sizes
        ],
        "by_clusters": [
            {"textures": n, "clusters": [n, n + 2], "regions_ms": spread(3 * n)} for n in (2, 4)
        ],
        "by_threads": [
            {"threads": n, "encoder_rate": spread(2.0 * n), "rate": spread(1.9 * n)} for n in (1, 2)
        ],
        "each_more": {"image_ms": 2.0, "class_ms": 0.5, "cluster_ms": 3.0},
        "size": 224,
        "threads": 2,
    }


def test_one_more_costs_the_slope():
    assert growth.slope(iter([(8, 17.0), (16, 33.0), (32, 65.0)])) == 2.0
    assert growth.slope(iter([(8, 17.0)])) == 0.0


def test_threads_are_doubled_up_to_all():
    assert [command.upto(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_the_table_has_every_step_and_what_one_more_costs():
    table = growth.markdown(made_up())
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}
    for word in ("8 · 16 · 32", "20 · 60 · 171 · 459 · 847", "224 px · 336 px · 448 px"):
        assert word in table
    for more in ("2 ms an image", "0.500 ms a class", "3.00 ms a cluster", "× 2.00"):
        assert more in table
    alone = made_up() | {"by_threads": []}
    assert "threads (" not in growth.markdown(alone)


def test_the_picture_is_the_same_file_again(tmp_path):
    first = [path.read_bytes() for path in growth_picture.draw(made_up(), tmp_path / "one.svg")]
    again = [path.read_bytes() for path in growth_picture.draw(made_up(), tmp_path / "two.svg")]
    assert first == again and all(len(content) > 5000 for content in first)
    panels = growth_picture.figure(made_up()).axes
    assert [axes.get_title().strip() for axes in panels] == [
        "Classes",
        "Image size",
        "Clusters",
        "Threads",
    ]
    assert all(axes.get_ylim()[0] == 0 and axes.get_xlabel() for axes in panels)
    labels = [label.get_text() for label in panels[0].get_xticklabels()]
    assert labels == ["20", "", "171", "459", "847"]  # 60 has no room


@pytest.mark.slow
def test_quick_growth_writes_everything_that_it_promises(tmp_path):
    growth.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))
    assert [one["images"] for one in found["by_images"]] == [1, 2, 4, 8]
    assert [one["classes"] for one in found["by_classes"]] == list(growth.CLASSES)
    assert [one["size"] for one in found["by_size"]] == list(growth.SIZES)
    assert [one["patches"] for one in found["by_size"]] == [196, 441, 784]
    assert {one["textures"] for one in found["by_clusters"]} == set(growth.TEXTURES)
    clusters = [sum(one["clusters"]) for one in found["by_clusters"]]
    assert clusters == sorted(clusters)  # two pictures each: their median is half their sum
    assert [one["threads"] for one in found["by_threads"]] == [1]
    assert set(found["each_more"]) == {"image_ms", "class_ms", "cluster_ms"}
    for key, measured in (
        ("by_images", ("s", "ms_an_image")),
        ("by_classes", ("ms", "encoder_ms", "ratio")),
        ("by_size", ("ms", "encoder_ms", "ratio")),
        ("by_clusters", ("regions_ms", "vote_ms")),
        ("by_threads", ("encoder_rate", "rate")),
    ):
        for one in found[key]:
            for name in measured:
                assert 0 < one[name]["min"] <= one[name]["median"] <= one[name]["max"]
    assert (tmp_path / "growth.md").read_text(encoding="utf-8") == growth.markdown(found)
    assert (tmp_path / "growth.png").is_file() and (tmp_path / "growth.svg").is_file()
