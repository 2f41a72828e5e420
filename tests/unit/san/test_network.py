"""The side network: its size, its positions, what is fused where."""

from __future__ import annotations

import pytest
import torch

from cliptrase.san import cost, settings
from cliptrase.san.model import Answer, SanModel, label_maps
from cliptrase.san.network import SideNetwork
from cliptrase.san.store import open_store
from cliptrase.san.train import is_still, optimizer_of


@pytest.fixture(scope="module")
def side(tiny):
    torch.manual_seed(0)
    return SideNetwork(tiny, 192, 3)


def test_the_full_size_has_as_many_parameters_as_published():
    """SAN's Table 3: 8.4 M with ViT-B/16."""
    assert round(cost.parameters(settings.load("coco")) / 1e6, 1) == 8.4


def test_the_reckoned_parameters_are_the_models(tiny, clip, text):
    model = SanModel(tiny, clip, text)
    assert sum(each.numel() for each in model.parameters()) == cost.parameters(tiny)
    assert not any(name.startswith("clip.") for name in model.state_dict())


def test_positions_are_added_before_the_first_block_and_after_every_one_but_the_last(side, tiny):
    """With blocks that change nothing, a token is its beginning and three positions."""
    for block in side.blocks:
        for layer in (block.out, block.mlp[2]):
            torch.nn.init.zeros_(layer.weight)
    seen = []
    handle = side.heads.register_forward_pre_hook(lambda _, given: seen.append(given))
    pixels = torch.zeros(1, 3, 224, 224)
    clip = {block: torch.randn(1, 196, 192) for block in tiny.fusion}
    with torch.no_grad():
        side(pixels, clip, (14, 14))
    handle.remove()
    queries, patches, _ = seen[-1]
    torch.testing.assert_close(queries, side.query + 3 * side.query_position)
    fused = sum(
        layer(clip[block], (14, 14), (14, 14))
        for layer, block in zip(side.fusion, tiny.fusion, strict=True)
    )
    wanted = side.patch.bias + fused + 3 * side.position
    torch.testing.assert_close(patches, wanted)
    # of the first supervised block, the second of three: fused there, the position not yet added
    torch.testing.assert_close(seen[0][0], side.query + 2 * side.query_position)


def test_what_does_not_decay_are_norms_queries_and_positions(tiny, clip, text):
    model = SanModel(tiny, clip, text)
    names = {name for name, _ in model.named_parameters() if is_still(name)}
    norms = {
        f"{place}.{part}"
        for place in ("side.fusion.0.norm", "side.fusion.1.norm")
        for part in ("weight", "bias")
    }
    norms |= {
        f"side.blocks.{block}.norm{number}.{part}"
        for block in range(3)
        for number in (1, 2)
        for part in ("weight", "bias")
    }
    assert names == norms | {"side.query", "side.query_position", "side.position"}
    still = optimizer_of(model, tiny).param_groups[1]
    assert len(still["params"]) == len(names) and still["weight_decay"] == 0


def test_the_result_sums_chances_times_masks():
    """By a loop, masks at the picture's own size."""
    stream = torch.Generator().manual_seed(4)
    classes, masks = (
        torch.randn(1, 3, 5, generator=stream),
        torch.randn(1, 3, 2, 2, generator=stream),
    )
    sums = torch.zeros(4, 2, 2)
    for query in range(3):
        chances = classes[0, query].softmax(dim=0)
        for name in range(4):  # the fifth is "no object"
            sums[name] += chances[name] * masks[0, query].sigmoid()
    assert label_maps(Answer(classes, masks), (2, 2))[0].equal(sums.argmax(dim=0))


def test_learned_positions_begin_as_clips_own(tiny, clip, text, data):
    """An experiment that trains them computes at first what one that keeps tokens has kept."""
    live = SanModel(tiny.model_copy(update={"train_positions": True}), clip, text)
    store = open_store(tiny, data)
    pixels = clip.normalise(store.pixels[:1])
    tokens, batch = live.clip_tokens(pixels), store.batch([0])
    for block, kept in batch.tokens.items():
        assert tokens[block].half().float().equal(kept)
    answer = live(pixels, tokens)[-1]
    answer.classes.sum().backward()
    gradient = live.clip_position.grad
    assert gradient is not None and bool(gradient.abs().sum() > 0)
