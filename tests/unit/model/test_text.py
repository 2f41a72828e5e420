"""Text features against open_clip's encode_text at its full 77 tokens."""

from __future__ import annotations

import dataclasses

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CustomTextCLIP

from cliptrase.data.read import vocabularies
from cliptrase.errors import UserError
from cliptrase.model.text import check_lengths, encode_tokens, text_features, unseen_words

NAMES = ["cat", "traffic light", "bed ", "chest of drawers, a very old one with many handles"]
TEMPLATES = ["a photo of a {}.", "itap of the {}.", "{}", "a low resolution photo of many {} {}."]


def test_cut_prompts_are_encoded_as_whole_ones(clip):
    tokens = open_clip.tokenize(["a", "a photo of a cat.", "word " * 100])  # the last one truncated
    assert torch.allclose(encode_tokens(clip, tokens), clip.model.encode_text(tokens), atol=2e-6)
    short = tokens[:2]
    assert torch.allclose(encode_tokens(clip, short), clip.model.encode_text(short), atol=2e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"proj_bias": True},
        {"proj_type": "none", "width": 24},
        {"final_ln_after_pool": True, "ls_init_value": 0.5},
        {"block_type": "custom", "scale_attn": True},
        {"context_length": 12, "output_tokens": True},
    ],
    ids=lambda change: "-".join(change),
)
def test_towers_of_their_own_are_encoded_as_open_clip_does(clip, change):
    text = {"width": 32, "heads": 2, "layers": 2, "context_length": 77, **change}
    vision = {"layers": 1, "width": 16, "head_width": 16, "patch_size": 16, "image_size": 32}
    model = CustomTextCLIP(24, vision, text, quick_gelu=True).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.text.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    tokens = open_clip.tokenize(["cat", "a photo of a cat.", "word " * 100], text["context_length"])
    expected = model.encode_text(tokens)
    expected = expected[0] if isinstance(expected, tuple) else expected
    ours = encode_tokens(dataclasses.replace(clip, model=model), tokens)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-6)


def test_features_are_normalised_means_of_normalised_prompts(clip):
    ours = text_features(clip, NAMES, TEMPLATES)
    for name, feature in zip(NAMES, ours, strict=True):
        prompts = [template.replace("{}", name) for template in TEMPLATES]
        encoded = clip.model.encode_text(open_clip.tokenize(prompts))
        expected = F.normalize(F.normalize(encoded, dim=-1).mean(dim=0), dim=-1)
        assert torch.allclose(feature, expected, atol=1e-6)
    assert ours.dtype == torch.float32 and ours.shape == (4, clip.embed_dim)


def test_a_name_has_the_same_feature_in_any_company(clip):
    alone = text_features(clip, ["cat"], TEMPLATES)[0]
    for names, workers in (["dog", "cat"], 1), ([*NAMES, "dog"], 3):
        feature = text_features(clip, names, TEMPLATES, workers)[names.index("cat")]
        assert torch.equal(feature, alone)


def test_threads_of_the_caller_are_left_alone(clip):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        text_features(clip, ["cat"], TEMPLATES, workers=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_names_are_taken_verbatim(clip):
    odd = text_features(clip, ["{}", "{0} cats", "100% {x}"], TEMPLATES)
    assert torch.isfinite(odd).all()


def test_unseen_words(tiny):
    clip = tiny(layers=1)
    assert unseen_words(clip, ["a red zebra"]) == []  # no row is cleared
    table = clip.model.token_embedding.weight
    for word in ("zebra", "giraffe"):
        table[clip.tokenizer.encode(word)[-1]] = 0
    table[0] = 0  # "!", which is also the padding: no word is unseen for its padding
    assert unseen_words(clip, ["a red zebra", "giraffe zebra", "cat"]) == ["zebra", "giraffe"]
    assert unseen_words(clip, []) == []


def test_a_prompt_that_the_model_would_cut_off_is_refused(clip):
    limit = 77
    longest = " ".join(["cat"] * (limit - 2))
    assert text_features(clip, [longest], ["{}"]).shape == (1, clip.embed_dim)
    for names, templates, counts in (
        ([f"{longest} dog"], ["{}"], (78, 78)),
        (["dog", longest], ["{}", "a {}."], (77, 79)),
        (["dog"], [f"{longest} {{}}"], (3, 78)),
        (["\N{WATERMELON}" * 60], ["{}"], (None, None)),
    ):
        with pytest.raises(UserError) as caught:
            text_features(clip, names, templates)
        message = str(caught.value)
        assert repr(names[-1][:60]) in message and repr(templates[-1][:60]) in message
        assert len(message) < 300
        assert clip.label in message and f"reads {limit}" in message and "shorten" in message
        alone, whole = counts
        assert alone is None or (f"{alone} tokens long" in message and f" {whole}, and" in message)


def test_two_long_names_with_one_beginning_are_refused(clip):
    names = [" ".join(["word"] * 90) + end for end in (" a", " b")]
    with pytest.raises(UserError, match="93 tokens"):
        text_features(clip, names, ["a photo of a {}."])


def test_no_shipped_list_is_cut_off_by_the_shipped_prompts(clip):
    templates = vocabularies.read_templates(vocabularies.template_path("imagenet80"))
    for name in vocabularies.shipped(vocabularies.VOCABULARIES):
        classes = vocabularies.read_classes(vocabularies.vocabulary_path(name))
        check_lengths(clip, [name for names in classes for name in names], templates)


def test_names_are_compared_as_the_tokenizer_reads_them():
    """Over all shipped names and spellings of them: equal pieces exactly where tokens are equal."""
    tokenizer, names = open_clip.SimpleTokenizer(), set()
    for name in vocabularies.shipped(vocabularies.VOCABULARIES):
        for words in vocabularies.read_classes(vocabularies.vocabulary_path(name)):
            names |= {*words, words[0].upper(), words[0].replace("-", " - "), f" {words[0]}"}
    names |= {
        "caf\xe9",
        "cafe\u0301",
        "cafe",
        "it\u2019s",
        "it's",
        "it 's",
        "its",
        "\ufb01sh",
        "fish",
    }
    names |= {
        "a&amp;amp;b",
        "a & b",
        "a&b",
        "a b",
        "66",
        "6 6",
        "\uff14\uff12",
        "42",
        "\u4e8c",
        "\u2461",
    }
    read, pieces = {}, {}
    for name in sorted(names):
        read.setdefault(tuple(tokenizer.encode(name)), []).append(name)
        pieces.setdefault(vocabularies.as_read(name), []).append(name)
    assert sorted(read.values()) == sorted(pieces.values())
    assert len(read) < len(names)
