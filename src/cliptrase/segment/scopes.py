"""The last block attending within masks that a second network merges: CorrCLIP.

Shapes as in model/vision.py; N' = h'·w' patches of the second network. A region is one of its
merged masks; the lowest, 0, is the picture's unsegmented part.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.config.method import Backbone
from cliptrase.config.method_attention import Attention
from cliptrase.model import vision
from cliptrase.model.affinity import cosines
from cliptrase.model.dino import features
from cliptrase.model.proxy import proxied
from cliptrase.segment.clustering import dbscan
from cliptrase.segment.tiles import nearest

EPS = 0.2  # of DBSCAN; a distance is the largest cosine of two masks less theirs
SHARPNESS = 4.0  # what similarities are multiplied by before their softmax
OF_CLS = 0.5  # what the [CLS] token of a region counts beside its patches


def corrclip(
    original: vision.Original, blocks: range, attention: Attention, dino: Backbone, sam: Backbone
) -> vision.Mixed:
    """Tokens after LN_post on the grid of `dino` (CorrCLIP, ICCV 2025), [CLS] of the unmodified
    model: LN_post(main) + LN_post(spatial) + ½·LN_post(semantic).

    main: OP(A·v) (`model.proxy.proxied`), A = `scoped_attention` within the regions that
    `merged_masks` makes of the masks of `sam`, by the queries plus keys of `dino`. spatial: the
    same of the mean output of blocks 6 to 10. semantic: the [CLS] token of the region
    (`region_tokens`), of which there is one for each region that CLIP's grid has a patch of.
    """
    clip, last, seen = original.clip, blocks.start, original.dino(dino)
    compared = features(original.network(dino), seen, "query + key")[0][:, 0, 1:]
    unit = F.normalize(compared, dim=-1)
    masks = nearest(original.sam_masks(sam), seen.grid).flatten(1)
    regions = torch.stack([merged_masks(*each) for each in zip(masks, unit, strict=True)])
    weights = scoped_attention(cosines(compared), regions)

    first, stop = clip.inner_index(6), clip.inner_index(10)
    inner = vision.summed(original, first, stop) / (stop - first + 1)
    main = proxied(original, last, weights, seen.grid)
    spatial = proxied(original, last, weights, seen.grid, inner)
    on_clip = nearest(regions.unflatten(1, seen.grid), original.grid)
    back = nearest(on_clip, seen.grid).flatten(1)
    semantic = [
        region_tokens(original, image, on_clip[image].flatten())[numbers]
        for image, numbers in enumerate(back)
    ]
    norm = clip.visual.ln_post
    patches = norm(main) + norm(spatial) + OF_CLS * norm(torch.stack(semantic))
    cls = norm(original.entering(blocks.stop)[:, :1])
    return vision.Mixed(torch.cat([cls, patches], dim=1), seen.grid, normed=True)


def merged_masks(masks: Tensor, unit: Tensor) -> Tensor:
    """Regions (N,) int64 of the patches of one picture, of the numbers of their `masks` (N,).

    The lowest number is region 0. Where there are more than two, the others are merged by the mean
    of their patches' features, `unit` (N, D) of length 1: DBSCAN, min_samples 1, of the distance
    that cosines have to the largest cosine.
    """
    numbers, places = masks.unique(return_inverse=True)
    if len(numbers) <= 2:
        return places
    members = F.one_hot(places, len(numbers)).double()
    means = F.normalize(members.T @ unit.double(), dim=1)[1:]
    similar = means @ means.T
    near = similar.max() - similar <= EPS
    near.fill_diagonal_(True)
    return F.pad(dbscan(near[None], 1)[0] + 1, (1, 0))[places]


def scoped_attention(similar: Tensor, regions: Tensor) -> Tensor:
    """A (B, N, N) = softmax(4·S) of the similarities S (B, N, N) of patches, within their `regions`
    (B, N).

    Patches of the same region attend to one another. Patches of region 0 attend to all patches, and
    all to them, that are more like them than the mean of the picture's S. A patch always attends to
    itself: equal patches are no more like than their mean.
    """
    mean = similar.mean(dim=2).mean(dim=1)[:, None, None]
    same = regions.unsqueeze(2) == regions.unsqueeze(1)
    free = regions == 0
    either = free.unsqueeze(2) | free.unsqueeze(1)
    attended = torch.where(either, similar > mean, same)
    attended.diagonal(dim1=1, dim2=2).fill_(True)
    return (SHARPNESS * similar).masked_fill(~attended, -torch.inf).softmax(dim=2)


def region_tokens(original: vision.Original, image: int, regions: Tensor) -> Tensor:
    """[CLS] tokens (R, D) after the last block, by the number of a region, of one image of the
    batch and the `regions` (N,) of CLIP's patches; 0 for a number that no patch has.

    Each is a copy of the [CLS] token that enters the first block and goes through all blocks, where
    it attends to [CLS] and the patches of its region; no other token sees it.
    """
    clip = original.clip
    numbers, places = regions.unique(return_inverse=True)
    sees = F.pad(F.one_hot(places, len(numbers)).T == 1, (1, 0), value=True)
    tokens = original.entering(0)[image : image + 1, :1].repeat(1, len(numbers), 1)
    for index in range(clip.depth):
        q = vision.qkv(clip, index, tokens).q
        k, v = (part[image : image + 1] for part in original.qkv(index)[1:])
        mixed = vision.attend(vision.QKV(q, k, v), "softmax", ["qk"], sees)
        tokens = vision.finish(clip, index, tokens, mixed)
    by_number = tokens.new_zeros(int(numbers.max()) + 1, tokens.shape[2])
    return by_number.index_copy(0, numbers, tokens[0])
