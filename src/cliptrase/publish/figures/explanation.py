"""What a method makes of one picture, in words: the figures of the paper as sentences."""

from collections.abc import Iterator

import numpy as np

from cliptrase.publish.figures.quantities import Clusters, Predictions, Quantities

MOST = 12  # regions that have a line each


def explanation(each: Quantities) -> str:
    """A few lines on global patches, clusters, denoising, and the votes of the regions."""
    height, width = each.pixels.shape[:2]
    row, column = divmod(each.patch, each.grid[1])
    lines = [
        f"{each.name}: the model sees {width} × {height} pixels, {each.grid[1]} × {each.grid[0]} "
        f"patches; the patch shown is in row {row}, column {column}"
    ]
    lines += ["  global patches (share of the attention between patches, of [CLS]'s attention):"]
    for block, looks in each.looks.items():
        share, of_cls = 100 * looks.share, 100 * looks.of_cls
        count = int(looks.is_global.sum())
        lines += [f"    block {block:>2}: {count} ({share:.1f} %, {of_cls:.1f} %)"]
    if each.clusters is None:
        said = "the method clusters no patches: attention is CLIP's, its own are the label maps"
        return "\n".join([*lines, f"  {said}"])
    lines += [f"  {line}" for line in _of_clusters(each.clusters)]
    if each.predictions is None:
        return "\n".join([*lines, "  without words nothing is voted on"])
    return "\n".join([*lines, *(f"  {line}" for line in _votes(each.clusters, each.predictions))])


def _of_clusters(made: Clusters) -> Iterator[str]:
    before, after = int(made.before.max()) + 1, int(made.after.max()) + 1
    left = [100 * (labels < 0).mean() for labels in (made.before, made.after)]
    if not made.denoised:
        yield f"clusters: {before}; patches of no cluster: {left[0]:.0f} %; they are not denoised"
        return
    yield (
        f"clusters: {before}, denoised {after}; patches of no cluster: {left[0]:.0f} %, "
        f"denoised {left[1]:.0f} %"
    )
    noise = np.isin(made.before, made.noisy)
    lost = int(((made.before >= 0) & (made.after < 0)).sum())
    won = int(((made.before < 0) & (made.after >= 0)).sum())
    yield (
        f"noise: {len(made.noisy)} of the {before} clusters are like [CLS], {int(noise.sum())} of "
        f"{len(noise)} patches; the denoising takes {lost} patches out of clusters, and {won} in"
    )


def _votes(made: Clusters, words: Predictions) -> Iterator[str]:
    """What each region was before the vote and is after it, the largest regions first."""
    if not words.voted:
        yield "regions do not vote: every pixel keeps its own class"
        return
    numbers, sizes = np.unique(made.regions[made.regions >= 0], return_counts=True)
    if not numbers.size:
        yield "regions: none, every pixel keeps its own class"
        return
    outside = 100 * (made.regions < 0).mean()
    yield "regions, the largest first" + (
        f" ({outside:.1f} % of the picture are of none and keep their class):" if outside else ":"
    )
    order = np.argsort(-sizes, kind="stable")
    for place in order[:MOST]:
        inside = made.regions == numbers[place]
        votes = np.bincount(words.scr[inside], minlength=len(words.names))
        winner = int(np.bincount(words.final[inside]).argmax())
        others = votes.copy()
        others[winner] = 0
        second = int(others.argmax())
        line = (
            f"  region {numbers[place]}, {100 * inside.mean():.1f} % of the picture: "
            f"{words.names[winner]}, of {100 * votes[winner] / votes.sum():.1f} % of its pixels"
        )
        if others[second]:
            line += f"; next {words.names[second]}, {100 * others[second] / votes.sum():.1f} %"
        yield line
    if len(order) > MOST:
        rest = 100 * sizes[order[MOST:]].sum() / made.regions.size
        yield f"  and {len(order) - MOST} smaller ones, {rest:.1f} % of the picture"
