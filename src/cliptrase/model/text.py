"""Text features of class names: prompt templates, encoded, averaged (released code)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliptrase.errors import UserError
from cliptrase.model.load import Clip


def text_features(
    clip: Clip, names: Sequence[str], templates: Sequence[str], workers: int = 1
) -> Tensor:
    """One L2-normalised feature per name: (K, E) float32 on the model's device.

    Every template's prompt ("{}" takes the name, verbatim) is encoded and normalised; their mean is
    normalised again. A name is encoded alone, all its templates at once, so its feature depends on
    no other name; on a CPU `workers` names are encoded at a time, each by one thread. Raises
    UserError as `check_lengths`.
    """
    check_lengths(clip, names, templates)
    if clip.device.type != "cpu":
        return torch.stack([_name_feature(clip, name, templates) for name in names])
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return torch.stack(list(pool.map(lambda name: _name_feature(clip, name, templates), names)))


def check_lengths(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> None:
    """Raise UserError for a prompt of more tokens than the model reads: it would be cut off."""
    tokenizer = clip.tokenizer
    limit = tokenizer.context_length
    for name in names:
        for template in templates:
            prompt = template.replace("{}", name)
            if len(prompt.lower().encode()) + 2 <= limit:  # no token is shorter than a byte
                continue
            alone, whole = (len(tokenizer.encode(text)) + 2 for text in (name, prompt))
            if whole > limit:
                raise UserError(
                    f"{_begun(name)} is {alone} tokens long, in the prompt {_begun(template)} "
                    f"{whole}, and model {clip.label} reads {limit}; shorten the name or the prompt"
                )


def _begun(text: str) -> str:
    """A text in quotes, of a long one its first 60 characters."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}…"


def _name_feature(clip: Clip, name: str, templates: Sequence[str]) -> Tensor:
    prompts = [template.replace("{}", name) for template in templates]
    features = F.normalize(encode_tokens(clip, clip.tokenizer(prompts).to(clip.device)), dim=-1)
    return F.normalize(features.mean(dim=0), dim=-1)


def encode_tokens(clip: Clip, tokens: Tensor) -> Tensor:
    """Text embeddings (P, E), not normalised, of token ids (P, 77) from the tokenizer.

    The tower is causal and pools at the end-of-text token (the largest id), so the batch is cut to
    its longest prompt: the same up to float rounding, several times cheaper.
    """
    text = clip.text
    ends = tokens.argmax(dim=-1)
    length = int(ends.max()) + 1
    x = text.token_embedding(tokens[:, :length]) + text.positional_embedding[:length]
    x = text.transformer(x, attn_mask=text.attn_mask[:length, :length])
    x = text.ln_final(x[torch.arange(len(x), device=x.device), ends])
    if isinstance(text.text_projection, nn.Linear):
        return text.text_projection(x)
    return x if text.text_projection is None else x @ text.text_projection


def unseen_words(clip: Clip, names: Sequence[str]) -> list[str]:
    """Words of `names` with a token whose embedding is all zero: one the model never saw.

    The embedded model's training clears the rows of tokens outside its captions; other models have
    none. In order of appearance, each once.
    """
    cleared = (clip.text.token_embedding.weight == 0).all(dim=1).cpu()
    words = list(dict.fromkeys(word for name in names for word in name.split()))
    if not words or not cleared.any():
        return []
    tokens = clip.tokenizer(words)
    used = torch.arange(tokens.shape[1]) <= tokens.argmax(dim=-1, keepdim=True)
    unseen = (cleared[tokens] & used).any(dim=-1)
    return [word for word, is_unseen in zip(words, unseen.tolist(), strict=True) if is_unseen]
