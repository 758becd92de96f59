"""Packs several completions behind one copy of their prompt, so that an update runs each prompt once, not once per
rollout.

`[K, S]`: packs, tokens per pack: the prompt, its completions one after the other, padding. A token sees its prompt and
its own completion; the positions of each completion start after the prompt. So every completion gets exactly the inputs
of a row without others. For models with full attention that accept any mask; other models get one completion per
pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calibrl_core.models.encoding import PromptRows

# A pack computes the attention between its completions only to mask it out: a row of t tokens after n other tokens
# costs n t pairs of about 8 D operations per layer. It saves the prompt's L tokens, of about 24 D^2 operations each. D
# is at least 1000 in models for which this matters.
WASTE_PER_PROMPT_TOKEN = 3000  # pairs
PACK_TOKENS = 4096  # of prompt and completions: the mask of most kernels grows with the square, to 16 MB


@dataclass(frozen=True)
class Pack:
    """A prompt and the rows of its completions."""

    prompt: int
    rows: list[int]
    tokens: int


@dataclass(frozen=True)
class PackedInputs:
    """Inputs of the model, and the positions of each completion token's prediction."""

    input_ids: Tensor  # [K, S] long
    segments: Tensor | None  # [K, S] long: 0 prompt, 1.. completions, -1 padding; None if a causal mask is enough
    position_ids: Tensor  # [K, S] long, or [3, K, S] if the model's positions have three axes
    prompt_tokens: Tensor  # [K, S] long, index into [R * L] of the prompt's token at this place; -1 elsewhere
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
    """Return packs of rows. Consecutive rows of one prompt share a pack if that is cheaper.

    Args:
        owners: per row, the index of its prompt.
        lengths: per row, the tokens of its completion.
        prompt_lengths: per row, the tokens of its prompt.
        shared: False gives one row per pack.
        max_tokens: limit of a pack of several rows.
        max_rows: limit of rows per pack.
    """
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
    """Return rows in micro-batches whose packs, padded to the longest one, hold at most `budget_tokens`.

    A row that exceeds the budget has a micro-batch to itself. The largest packs come first, so that a lack of memory
    shows early, and packs of similar size are together. Rows of one prompt stay adjacent and in order, so that the
    packs are the same when the micro-batch runs. Arguments: as `pack_rows`.
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
    """Return the inputs of packs.

    Args:
        packs: each pack's `prompt` is a row of `prompts`.
        prompts: encoded prompts, `[R, L]`.
        completions: `[B, T]` long, right-padded.
        lengths: per row of completions, its tokens.
        pad_id: fills the end of shorter packs.
    """
    device, (count, width) = completions.device, prompts.input_ids.shape
    size = max(pack.tokens for pack in packs)
    segments = torch.full((len(packs), size), -1)  # [K, S]: 0 prompt, 1.. completions, -1 padding
    sources = torch.zeros((len(packs), size), dtype=torch.long)  # [K, S], index into prompts' and completions' tokens
    offsets = torch.zeros((len(packs), size), dtype=torch.long)  # [K, S], position in the token's completion
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
    # Padding after a single completion has increasing positions: transformers reads a jump back as a new sequence.
    after = prompts.next_positions[owner, None] + (offsets if shared else _running(of_prompt))
    prompt_tokens = sources.where(of_prompt, -1)
    return PackedInputs(
        input_ids=pool[sources].where(segments >= 0, pad_id),
        segments=segments if shared else None,
        position_ids=prompts.position_ids.flatten(-2)[..., prompt_tokens.clamp(min=0)].where(of_prompt, after),
        prompt_tokens=prompt_tokens,
        predictors=torch.tensor(predictors, dtype=torch.long, device=device),
    )


def _running(of_prompt: Tensor) -> Tensor:
    """Return 0, 1, 2, ... after each pack's prompt, `[K, S]` long."""
    return (~of_prompt).long().cumsum(-1) - 1
