"""Several completions behind one copy of their prompt, so that the update runs a prompt once and not once a rollout.

`[K, S]`: packs, tokens of a pack: the prompt, its completions one after the other, padding. A token sees its prompt and
its own completion; positions begin anew after the prompt for each. So every completion meets exactly what it would
alone in a row. For models of full attention that take a mask of four dimensions; others get a pack a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calibrl_core.models.encoding import PromptRows

# A pack computes the attention between its completions only to mask it out: with a row of t tokens behind n others,
# n t pairs, of some 8 D operations a layer. It saves the prompt's L tokens, of some 24 D^2 each. D is 1000 or more
# where it matters.
WASTE_PER_PROMPT_TOKEN = 3000  # pairs
PACK_TOKENS = 4096  # of prompt and completions: the mask grows with the square, to 16 MB


@dataclass(frozen=True)
class Pack:
    """One prompt and the rows of completions packed behind it."""

    prompt: int
    rows: list[int]
    tokens: int


@dataclass(frozen=True)
class PackedInputs:
    """What the model runs on, and where to read each completion token's prediction."""

    input_ids: Tensor  # [K, S] long
    attention_mask: Tensor | None  # [K, 1, S, S] bool, True = sees; None where being causal is all there is to it
    position_ids: Tensor  # [K, S] long, or [3, K, S] where the model's positions have three axes
    prompt_tokens: Tensor  # [K, S] long, into [R * L]: the prompt's token that stands there; -1 elsewhere
    predictors: Tensor  # [N] long, into [K * S]: for each counted token, row by row, the position that predicts it


def pack_rows(
    owners: Sequence[int],
    lengths: Sequence[int],
    prompt_lengths: Sequence[int],
    *,
    shared: bool = True,
    max_tokens: int | None = None,
    max_rows: int | None = None,
) -> list[Pack]:
    """Rows in packs, each given by its prompt, its tokens and its prompt's tokens. Neighbours of one prompt share a
    pack where that pays, unless `shared` is False; a pack of several rows keeps within `max_tokens` and `max_rows`."""
    limit = min(PACK_TOKENS, max_tokens or PACK_TOKENS)
    packs: list[Pack] = []
    for row, (owner, length, prompt) in enumerate(zip(owners, lengths, prompt_lengths, strict=True)):
        last = packs[-1] if packs else None
        if (
            shared
            and last is not None
            and last.prompt == owner
            and last.tokens + length <= limit
            and (last.tokens - prompt) * length <= WASTE_PER_PROMPT_TOKEN * prompt
            and (max_rows is None or len(last.rows) < max_rows)
        ):
            packs[-1] = Pack(owner, [*last.rows, row], last.tokens + length)
        else:
            packs.append(Pack(owner, [row], prompt + length))
    return packs


def micro_batches(
    owners: Sequence[int],
    lengths: Sequence[int],
    prompt_lengths: Sequence[int],
    budget_tokens: int,
    max_rows: int | None = None,
    *,
    shared: bool = True,
) -> list[list[int]]:
    """Rows (given as to `pack_rows`) in micro-batches whose packs, padded to the longest of them, hold `budget_tokens`
    at most. A row that is longer stands alone. Largest packs first: what does not fit in memory fails early, and
    neighbours are of a size. Rows of one prompt stay side by side and in order, so that the packs come out the same
    when the micro-batch runs.
    """
    packs = pack_rows(owners, lengths, prompt_lengths, shared=shared, max_tokens=budget_tokens, max_rows=max_rows)
    largest: dict[int, int] = {}
    for pack in packs:
        largest[pack.prompt] = max(pack.tokens, largest.get(pack.prompt, 0))
    packs.sort(key=lambda pack: (-largest[pack.prompt], pack.prompt))
    parts: list[list[int]] = []
    count = width = 0
    for pack in packs:
        wider = max(width, pack.tokens)
        full = not parts or (count + 1) * wider > budget_tokens
        if full or (max_rows is not None and len(parts[-1]) + len(pack.rows) > max_rows):
            parts.append([])
            count, wider = 0, pack.tokens
        parts[-1] += pack.rows
        count, width = count + 1, wider
    return parts


def pack_inputs(
    packs: Sequence[Pack], prompts: PromptRows, completions: Tensor, lengths: Sequence[int], pad_id: int
) -> PackedInputs:
    """The packs of `prompts` (each pack's `prompt` is a row of them) and completions `[R, T]`, right-padded."""
    device, (count, width) = completions.device, prompts.input_ids.shape
    size = max(pack.tokens for pack in packs)
    segments = torch.full((len(packs), size), -1)  # 0 prompt, 1.. completions, -1 padding
    sources = torch.zeros((len(packs), size), dtype=torch.long)  # of the prompts' tokens, then the completions'
    offsets = torch.zeros((len(packs), size), dtype=torch.long)  # in the token's own completion
    predictors: list[int] = []
    for index, pack in enumerate(packs):
        start = pack.tokens - sum(lengths[row] for row in pack.rows)
        segments[index, :start] = 0
        sources[index, :start] = torch.arange((pack.prompt + 1) * width - start, (pack.prompt + 1) * width)
        before = index * size + start - 1  # the prompt's last token predicts the first token of each completion
        for segment, row in enumerate(pack.rows, start=1):
            length, begins = lengths[row], count * width + row * completions.shape[1]
            segments[index, start : start + length] = segment
            sources[index, start : start + length] = torch.arange(begins, begins + length)
            offsets[index, start : start + length] = torch.arange(length)
            first = index * size + start
            predictors += [before, *range(first, first + length - 1)] if length else []
            start += length
    segments, sources, offsets = segments.to(device), sources.to(device), offsets.to(device)
    of_prompt = segments == 0
    pool = torch.cat([prompts.input_ids.flatten(), completions.flatten()])
    owner = torch.tensor([pack.prompt for pack in packs], device=device)
    shared = any(len(pack.rows) > 1 for pack in packs)
    # Behind a lone completion positions go on: a jump back would say to transformers that another text begins.
    after = prompts.next_positions[owner, None] + (offsets if shared else _running(of_prompt))
    prompt_tokens = sources.where(of_prompt, -1)
    return PackedInputs(
        input_ids=pool[sources].where(segments >= 0, pad_id),
        attention_mask=_block_mask(segments) if shared else None,
        position_ids=prompts.position_ids.flatten(-2)[..., prompt_tokens.clamp(min=0)].where(of_prompt, after),
        prompt_tokens=prompt_tokens,
        predictors=torch.tensor(predictors, dtype=torch.long, device=device),
    )


def _running(of_prompt: Tensor) -> Tensor:
    """0, 1, 2, ... behind each pack's prompt. `[K, S]` long."""
    return (~of_prompt).long().cumsum(-1) - 1


def _block_mask(segments: Tensor) -> Tensor:
    """True where a token may look: back, at its prompt or its own segment. `[K, 1, S, S]` bool."""
    size = segments.shape[1]
    seen = segments[:, None, :] == segments[:, :, None]
    seen |= segments[:, None, :] == 0
    seen &= torch.ones((size, size), dtype=torch.bool, device=segments.device).tril()
    return seen[:, None]
