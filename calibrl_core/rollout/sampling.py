"""Sampling shared by the rollout engines: random numbers per row, token draws, and batches that fit in memory.

`R`: rows. `V`: vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from calibrl_core.models.logprobs import sampler_logits
from calibrl_core.settings.sampling import PLAIN, SamplingSettings

BLOCK = 64  # uniform numbers generated at a time per row
# Logits processed at a time: the size of a CPU's cache, or enough to keep a GPU busy.
DRAW_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}


class Uniforms:
    """Random numbers in [0, 1), one per token. Each depends only on the seed, the row number and the token's position.

    Generated on demand, by one generator per row (Philox is counter-based: streams never overlap). All numbers of
    4800 rows of 4096 tokens would take 157 MB.
    """

    def __init__(self, seed: Sequence[int], rows: Sequence[int]) -> None:
        key = int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0])
        self._generators = [np.random.Generator(np.random.Philox(key=[key, row])) for row in rows]

    def keep(self, places: Sequence[int]) -> None:
        """Continue with these rows only, given by their positions among the current rows."""
        self._generators = [self._generators[place] for place in places]

    def block(self, size: int = BLOCK) -> Tensor:
        """Return the next `size` numbers of each row, `[size, R]` float64."""
        return torch.from_numpy(np.stack([generator.random(size) for generator in self._generators], axis=1))


class Drawn(NamedTuple):
    """A token per row, with values in nats, `[R]` each."""

    tokens: Tensor  # long
    logprobs: Tensor  # float, under the policy: softmax of logits / temperature over the tokens that are not banned
    sampler_logprobs: Tensor  # float, under the distribution that was sampled from
    entropies: Tensor  # float, of the policy's distribution


def draw(
    logits: Tensor,
    temperature: float,
    banned: Tensor,
    uniforms: Tensor,
    sampling: SamplingSettings = PLAIN,
    repeated: Tensor | None = None,
) -> Drawn:
    """Draw a token for each row of logits `[R, V]`.

    Temperature 0 takes the most likely token; all values are then those at temperature 1.

    The token is the position where the cumulative distribution exceeds the row's value of `uniforms` `[R]` float64.
    The sum is float64, so that the last of 150,000 tokens is not lost to rounding. A token of probability 0 is never
    drawn.

    Args:
        logits: of the policy.
        temperature: divisor of the logits.
        banned: `[V]` bool, tokens that are never sampled.
        uniforms: in [0, 1).
        sampling: filters, in vLLM's order: repetition_penalty, temperature, min_p, top_k, top_p. Each works on the
            renormalised result of those before.
        repeated: `[R, V]` bool, tokens that the repetition penalty acts on; None: no penalty.
    """
    size = max(1, DRAW_ELEMENTS[logits.device.type] // logits.shape[1])
    parts = []
    for start in range(0, len(logits), size):
        part = slice(start, start + size)
        rows = logits[part]
        logs = sampler_logits(rows, temperature or 1.0, banned).log_softmax(-1)
        probabilities = logs.exp()
        sampled, weights = logs, probabilities
        if not sampling.keeps_distribution:
            penalised = rows if repeated is None else _penalised(rows, repeated[part], sampling)
            sampled = _filtered(sampler_logits(penalised, temperature or 1.0, banned), sampling).log_softmax(-1)
            weights = sampled.exp()
        chosen = (sampled.argmax(-1) if temperature == 0 else _invert(weights, uniforms[part]))[:, None]
        logprobs, sampler_logprobs = logs.gather(-1, chosen), sampled.gather(-1, chosen)
        logs.clamp_(min=torch.finfo(logs.dtype).min)  # 0 x this is 0; 0 x -inf would be NaN
        entropies = -probabilities.mul_(logs).sum(-1)
        parts.append((chosen.squeeze(-1), logprobs.squeeze(-1), sampler_logprobs.squeeze(-1), entropies))
    return Drawn(*(torch.cat(column) for column in zip(*parts, strict=True)))


def token_sets(tokens: Tensor, mask: Tensor, vocabulary: int) -> Tensor:
    """Return which tokens each row has, `[R, V]` bool, from tokens `[R, L]` long and mask `[R, L]` bool. A marker of an
    image, which the output layer can lack, is left out.
    """
    kept = tokens.where(mask, vocabulary).clamp(max=vocabulary)
    sets = torch.zeros((len(tokens), vocabulary + 1), dtype=torch.bool, device=tokens.device)
    return sets.scatter_(1, kept, True)[:, :vocabulary]


def _penalised(logits: Tensor, repeated: Tensor, sampling: SamplingSettings) -> Tensor:
    """Return logits with the repetition penalty (arXiv 1909.05858, section 4.1)."""
    penalty = sampling.repetition_penalty
    return torch.where(repeated, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _filtered(logits: Tensor, sampling: SamplingSettings) -> Tensor:
    """Return logits `[R, V]` with -inf for the tokens that min_p, top_k and top_p remove. The most likely one stays.

    min_p: arXiv 2407.01082. top_p: arXiv 1904.09751, nucleus sampling. Tokens as likely as the last of top_k stay too.
    """
    if sampling.min_p > 0:
        lowest = logits.amax(-1, keepdim=True) + math.log(sampling.min_p)
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    if 0 < sampling.top_k < logits.shape[-1]:
        lowest = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    if sampling.top_p < 1:
        ordered, places = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1, dtype=torch.float64) - probabilities  # of more likely tokens
        removed = before >= sampling.top_p
        logits = logits.masked_fill(removed.scatter(-1, places, removed), -torch.inf)
    return logits


def _invert(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    targets = (uniforms * cumulative[:, -1])[:, None]
    chosen = torch.searchsorted(cumulative, targets, right=True).squeeze(-1)
    return chosen.where(chosen < probabilities.shape[-1], probabilities.argmax(-1))  # rounding can exceed the sum


def batches(
    prompt_lengths: Sequence[int], group_size: int, max_tokens: int, budget_tokens: int
) -> list[tuple[list[int], int]]:
    """Return batches of prompts, each with the number of a group's rows that run at the same time.

    All rows of a group run together unless a single group is too large. Rows x (longest prompt + max_tokens) stays
    within the budget, down to one row. Prompts of similar length share a batch, since all are padded to the longest.
    """
    order = sorted(range(len(prompt_lengths)), key=lambda prompt: -prompt_lengths[prompt])
    result: list[tuple[list[int], int]] = []
    room = 0  # free places in the last batch, in prompts
    for prompt in order:
        if room == 0:
            rows = max(1, budget_tokens // (prompt_lengths[prompt] + max_tokens))
            result.append(([], min(rows, group_size)))
            room = max(1, rows // group_size)
        result[-1][0].append(prompt)
        room -= 1
    return result
