"""Several completions behind one copy of their prompt, so that the update runs a prompt once and not once a rollout.

`[K, S]`: packs, tokens of a pack: the left-padded prompt, then its completions one after the other, then padding. A
token sees its prompt and its own completion; positions begin anew after the prompt for each. So every completion meets
exactly what it would alone in a row. For models of full attention that take a mask of four dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PACK_TOKENS = 1024  # completion tokens behind one prompt at most: the mask grows with their square


@dataclass(frozen=True)
class Pack:
    """One prompt (an index into the examples) and the rows of completions packed behind it."""

    prompt: int
    rows: list[int]


@dataclass(frozen=True)
class PackedInputs:
    """What the model runs on, and where to read each completion token's prediction."""

    input_ids: Tensor  # [K, S] long
    attention_mask: Tensor  # [K, S] long where each pack holds one completion, else [K, 1, S, S] float, added to scores
    position_ids: Tensor  # [K, S] long
    predictors: Tensor  # [N] long, into [K * S]: for each counted token, row by row, the position that predicts it


def pack_rows(owners: Sequence[int], lengths: Sequence[int]) -> list[Pack]:
    """Rows in packs: neighbours of one prompt share a pack while their tokens fit in `PACK_TOKENS`."""
    packs: list[Pack] = []
    filled = 0
    for row, (owner, length) in enumerate(zip(owners, lengths, strict=True)):
        if packs and packs[-1].prompt == owner and filled + length <= PACK_TOKENS:
            packs[-1].rows.append(row)
            filled += length
        else:
            packs.append(Pack(owner, [row]))
            filled = length
    return packs


def pack_inputs(
    packs: Sequence[Pack], prompt_ids: Tensor, prompt_mask: Tensor, completions: Tensor, lengths: Sequence[int]
) -> PackedInputs:
    """prompt_ids and prompt_mask `[K, L]` left-padded, a row a pack; completions `[R, T]` right-padded."""
    device, width = prompt_ids.device, prompt_ids.shape[1]
    longest = max(sum(lengths[row] for row in pack.rows) for pack in packs)
    size = width + longest
    input_ids = torch.zeros((len(packs), size), dtype=torch.long, device=device)
    segments = torch.full((len(packs), size), -1, device=device)  # 0 prompt, 1.. completions, -1 padding
    position_ids = torch.zeros((len(packs), size), dtype=torch.long, device=device)
    input_ids[:, :width] = prompt_ids
    segments[:, :width] = prompt_mask.long() - 1
    position_ids[:, :width] = (prompt_mask.cumsum(-1) - 1).clamp(min=0)
    predictors: list[Tensor] = []
    for index, pack in enumerate(packs):
        start = width
        for segment, row in enumerate(pack.rows, start=1):
            end = start + lengths[row]
            input_ids[index, start:end] = completions[row, : lengths[row]]
            segments[index, start:end] = segment
            position_ids[index, start:end] = (
                position_ids[index, width - 1] + 1 + torch.arange(end - start, device=device)
            )
            # The prompt's last token predicts the first token of each completion, each token the next.
            predictors.append(torch.tensor([width - 1, *range(start, end - 1)], device=device) + index * size)
            start = end
    alone = all(len(pack.rows) == 1 for pack in packs)
    mask = (segments >= 0).long() if alone else _block_mask(segments)
    return PackedInputs(input_ids, mask, position_ids, torch.cat(predictors))


def _block_mask(segments: Tensor) -> Tensor:
    """0 where a token may look (back, at its prompt or its own segment), else the least float. `[K, 1, S, S]`."""
    size = segments.shape[1]
    causal = torch.ones((size, size), dtype=torch.bool, device=segments.device).tril()
    seen = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    # Padding sees itself, since a row of nothing but -inf would be NaN.
    allowed = causal & seen | torch.eye(size, dtype=torch.bool, device=segments.device)
    least = torch.finfo(torch.float32).min
    return torch.zeros(allowed.shape, device=segments.device).masked_fill(~allowed, least)[:, None]
