"""From token losses to one number: each token's weight in the loss of its mini-batch."""

from torch import Tensor

from calibrl_core.algorithms.base import Aggregation


def token_weights(mask: Tensor, aggregation: Aggregation) -> Tensor:
    """Weights `[B, T]` float such that loss = sum(weights * token losses). mask `[B, T]` bool, of a whole mini-batch.

    Taken over the mini-batch before it is cut into micro-batches, so that neither their number nor rows left out of the
    forward pass change the denominator.
    """
    counted = mask.float()
    if aggregation == "token-mean":
        return counted / counted.sum().clamp(min=1)
    if aggregation == "seq-mean-token-sum":
        return counted / mask.shape[0]
    return counted / counted.sum(-1, keepdim=True).clamp(min=1) / mask.shape[0]
