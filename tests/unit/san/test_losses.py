"""Matching by brute force, losses by their formulas."""

from __future__ import annotations

from itertools import permutations
from math import exp, log

import numpy as np
import pytest
import torch

from cliptrase.san.losses import (
    Points,
    Truth,
    at_points,
    drawn_points,
    least_certain,
    loss_of,
    matched,
    matching_costs,
    truth_of,
)
from cliptrase.shapes.stream import Stream


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


@pytest.mark.parametrize("queries", [3, 5])
def test_each_class_has_its_own_query_at_the_least_cost(queries):
    for seed in range(20):
        costs = torch.randn(queries, 3, generator=torch.Generator().manual_seed(seed))
        rows, columns = matched(costs)
        least = min(
            sum(float(costs[query, place]) for place, query in enumerate(chosen))
            for chosen in permutations(range(queries), 3)
        )
        assert sorted(columns.tolist()) == [0, 1, 2] and len(set(rows.tolist())) == 3
        assert float(costs[rows, columns].sum()) == pytest.approx(least, abs=1e-6)


def test_costs_are_those_of_their_formulas():
    stream = torch.Generator().manual_seed(1)
    logits, masks = (torch.randn(*s, generator=stream) for s in ((2, 4), (2, 6)))
    truth = (torch.rand(2, 6, generator=stream) > 0.5).float()
    classes = torch.tensor([2, 0])
    costs = matching_costs(logits, masks, classes, truth)
    for query in range(2):
        values = [float(x) for x in logits[query]]
        for column, name in enumerate(classes.tolist()):
            chance = exp(values[name]) / sum(map(exp, values))  # no weight for "no object" here
            entropy, both, shares = 0.0, 0.0, 0.0
            for value, true in zip(masks[query].tolist(), truth[column].tolist(), strict=True):
                share = sigmoid(value)
                entropy -= log(share if true else 1 - share) / 6
                both, shares = both + share * true, shares + share + true
            dice = 1 - (2 * both + 1) / (shares + 1)
            wanted = -2 * chance + 5 * entropy + 5 * dice
            assert float(costs[query, column]) == pytest.approx(wanted, abs=1e-5)


def test_the_loss_is_that_of_its_formula():
    """Masks that are the same everywhere but beyond the middle of border cells, where they fade."""
    values = [[2.0, -1.0, 0.5], [-3.0, 1.5, 0.0]]  # two pictures, three queries
    masks = torch.tensor(values)[:, :, None, None].expand(2, 3, 2, 2).clone()
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2))
    whole = torch.ones(1, 8, 8)
    truths = [Truth(torch.tensor([1]), whole), Truth(torch.tensor([3]), whole)]
    weights, entropy, mask_losses = 0.0, 0.0, 0.0
    for place, (own, name) in enumerate(zip(values, (1, 3), strict=True)):
        chances = logits[place].softmax(dim=1)
        points = 16
        costs = [
            5 * -log(sigmoid(x)) + 5 * (1 - (2 * p + 1) / (p + points + 1))
            for x, p in ((x, points * sigmoid(x)) for x in own)
        ]
        best = min(range(3), key=lambda q: costs[q] - 2 * float(chances[q, name]))
        mask_losses += costs[best]
        for query in range(3):
            weight, target = (1.0, name) if query == best else (0.1, 4)
            entropy -= weight * log(float(chances[query, target]))
            weights += weight
    middle = torch.full((), 0.5)
    spots = Points(*(middle.expand(2, count, 2) for count in (16, 48, 4)))
    loss = loss_of(logits, masks, truths, spots)
    assert float(loss) == pytest.approx(2 * entropy / weights + mask_losses / 2, abs=1e-4)


def test_a_picture_without_a_class_only_teaches_that_there_is_none():
    logits, masks = torch.zeros(1, 2, 4), torch.zeros(1, 2, 2, 2)
    empty = truth_of(np.full((4, 4), 255), 255)
    assert float(
        loss_of(logits, masks, [empty], drawn_points([empty], 4, Stream(0)))
    ) == pytest.approx(2 * log(4))


def test_points_are_read_bilinearly():
    maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.5, 0.5]]])
    assert at_points(maps, points)[0].tolist() == pytest.approx([0, 1, 2, 1.5])


def test_three_quarters_of_the_points_are_where_a_mask_is_least_certain():
    masks = torch.full((1, 8, 8), 9.0)
    masks[:, :, :4] = 0.1  # the left half
    truth = Truth(torch.tensor([1]), masks)
    points = least_certain(masks, drawn_points([truth], 400, Stream(3)))
    left = (points[0, :, 0] < 0.5).float()
    assert points.shape == (1, 400, 2)
    assert left[:300].mean() > 0.99 and 0.3 < left[300:].mean() < 0.7


def test_a_picture_has_one_mask_for_each_of_its_classes():
    classes = np.array([[4, 4], [0, 255]], dtype=np.uint8)
    truth = truth_of(classes, 255)
    assert truth.classes.tolist() == [0, 4]
    assert truth.masks.tolist() == [[[0, 0], [1, 0]], [[1, 1], [0, 0]]]
