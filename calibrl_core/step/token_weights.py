"""Aggregation of token losses: each token's weight in the loss of its mini-batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from calibrl_core.algorithms.base import Aggregation


def token_weights(
    mask: Tensor,
    aggregation: Aggregation,
    *,
    max_tokens: int,
    sum_over: Callable[[Sequence[float]], list[float]] = list,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return weights `[B, T]` such that loss = sum(weights * token losses). mask `[B, T]` bool, of a whole mini-batch.

    Rows without tokens are not counted as sequences. The denominators count the whole mini-batch, so that neither
    the number of micro-batches nor rows left out of the forward pass change them. `sum_over` sums counts over the
    processes.

    - token-mean: every token of the mini-batch has the same weight.
    - seq-mean-token-mean, seq-mean-token-sum: the mean over sequences of each one's mean, or sum.
    - seq-mean-token-sum-norm: the sum over all tokens / (sequences * max_tokens) (Dr.GRPO, arXiv 2503.20783).
    """
    counted = mask.to(dtype)
    tokens, sequences = sum_over([int(mask.sum()), int(mask.any(-1).sum())])
    if aggregation == "token-mean":
        return counted / max(1, tokens)
    per_sequence = counted / max(1, sequences)
    if aggregation == "seq-mean-token-sum":
        return per_sequence
    if aggregation == "seq-mean-token-sum-norm":
        return per_sequence / max_tokens
    return per_sequence / counted.sum(-1, keepdim=True).clamp(min=1)
