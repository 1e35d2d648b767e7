"""The memory of normality (MNAD, section 3.1.2 and 3.2), shared by MNAD and LGN-Net.

Shapes: S memories, N queries, M items, D channels. Queries and items have unit norm. The items are state, not
parameters: every function takes them and none changes them. All queries of a training batch meet one memory
(S = 1, N = B h w); at test time the queries of one frame may meet several memories at once.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Queries = Float[Tensor, "#S N D"]
Items = Float[Tensor, "#S M D"]


def initial_items(items: int, channels: int) -> Float[Tensor, "1 M D"]:
    """Random items in the positive orthant, as the authors' code draws them; from torch's global generator."""
    return F.normalize(torch.rand(1, items, channels), dim=-1)


def queries_of(features: Float[Tensor, "B D h w"]) -> Float[Tensor, "1 N D"]:
    """Each position's feature vector, normalised; N = B h w, all for one memory."""
    return F.normalize(features, dim=1).permute(0, 2, 3, 1).reshape(1, -1, features.shape[1])


def as_map(queries: Float[Tensor, "S N D"], height: int, width: int) -> Float[Tensor, "B D h w"]:
    """Undo the flattening of `queries_of`: positions of S memories and B frames back to feature maps."""
    return queries.reshape(-1, height, width, queries.shape[-1]).permute(0, 3, 1, 2)


def read(queries: Queries, items: Items) -> Float[Tensor, "S N D"]:
    """Equations 1 to 3: for each query the mean of all items, weighted by a softmax over items.

    Neither the weights nor the items carry a gradient: the pixel loss reaches the encoder only past the memory.
    """
    items = items.detach()
    return (queries.detach() @ items.mT).softmax(-1) @ items


def update(queries: Queries, items: Items) -> Float[Tensor, "S M D"]:
    """Equations 4 to 6: each item moves by the queries that are nearest to it.

    A query counts by its similarity relative to the best of *all* queries for that item, not only of those
    nearest to it: exp(s - max s), the softmax over queries renormalised. An item that no query is nearest to stays.
    """
    queries, items = queries.detach(), items.detach()
    similarity = queries @ items.mT  # S N M
    nearest = F.one_hot(similarity.argmax(-1), items.shape[-2])
    weight = (similarity - similarity.amax(-2, keepdim=True)).exp() * nearest
    return F.normalize(items + weight.mT @ queries, dim=-1)


def compactness(queries: Queries, items: Items) -> Float[Tensor, " S"]:
    """Equation 8, as a mean over queries and channels: squared distance to the nearest item.

    Also the feature distance of the test score (equation 10), which the authors' code takes squared.
    """
    nearest = _ranked(queries, items)[..., 0]
    return (queries - _pick(items, nearest)).square().mean((-2, -1))


def separateness(queries: Float[Tensor, "1 N D"], items: Float[Tensor, "1 M D"]) -> Float[Tensor, ""]:
    """Equation 9: the nearest item is nearer than the second nearest by a margin of 1."""
    ranked = _ranked(queries, items)
    nearest, second = _pick(items, ranked[..., 0]), _pick(items, ranked[..., 1])
    return F.triplet_margin_loss(queries, nearest, second, margin=1.0)


def _ranked(queries: Queries, items: Items) -> Tensor:
    """Indices of the nearest and the second nearest item, (S, N, 2)."""
    return (queries.detach() @ items.detach().mT).topk(2, dim=-1).indices


def _pick(items: Items, index: Tensor) -> Float[Tensor, "S N D"]:
    """The items at `index` (S, N), without gradient."""
    return items.detach().gather(-2, index[..., None].expand(*index.shape, items.shape[-1]))
