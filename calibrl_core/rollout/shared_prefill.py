"""The rollout engine: each prompt and its images run once for their whole group, and finished rows leave the batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from calibrl_core.data.schema import Example
from calibrl_core.logprobs import entropy, sampler_logits
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts

DROP_BELOW = 0.75  # finished rows are dropped once fewer than this share are still alive: dropping copies the cache


class SharedPrefillEngine:
    """Prefill once a prompt, repeat the cache for the group, decode token by token."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @torch.no_grad()
    def generate(
        self, examples: Sequence[Example], *, group_size: int, temperature: float, max_tokens: int, seed: Sequence[int]
    ) -> Rollouts:
        """See `RolloutEngine.generate`. One uniform number decides each token, drawn for all rows up front, so that a
        row's completion does not depend on when other rows finish."""
        policy = self._policy
        policy.model.eval()
        rows = policy.encode(examples)
        output = policy.model(
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            position_ids=(rows.attention_mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
            **rows.images,
        )
        cache = output.past_key_values
        cache.batch_repeat_interleave(group_size)
        logits = output.logits[:, -1].repeat_interleave(group_size, dim=0)  # [B, V]
        attention_mask = rows.attention_mask.repeat_interleave(group_size, dim=0)  # [B, L]
        count = len(examples) * group_size
        uniforms = torch.from_numpy(np.random.default_rng(list(seed)).random((max_tokens, count), dtype=np.float64))
        return self._decode(cache, logits, attention_mask, uniforms.to(policy.device), temperature, group_size)

    def _decode(
        self, cache: object, logits: Tensor, attention_mask: Tensor, uniforms: Tensor, temperature: float, group: int
    ) -> Rollouts:
        policy = self._policy
        max_tokens, count = uniforms.shape
        stops = torch.tensor(sorted(policy.stop_ids), device=policy.device)
        tokens = torch.full((count, max_tokens), policy.pad_id, device=policy.device)
        mask = torch.zeros((count, max_tokens), dtype=torch.bool, device=policy.device)
        logprobs = torch.zeros((count, max_tokens), device=policy.device)
        entropies = torch.zeros((count, max_tokens), device=policy.device)
        rows = torch.arange(count, device=policy.device)  # rows still in the batch
        alive = torch.ones(count, dtype=torch.bool, device=policy.device)  # of those, not finished
        positions = attention_mask.sum(-1)
        for step in range(max_tokens):
            scores = sampler_logits(logits, temperature or 1.0, policy.banned)
            chosen = scores.argmax(-1) if temperature == 0 else _sample(scores, uniforms[step, rows])
            writing = rows[alive]
            tokens[writing, step] = chosen[alive]
            mask[writing, step] = True
            logprobs[writing, step] = scores.log_softmax(-1).gather(-1, chosen[:, None]).squeeze(-1)[alive]
            entropies[writing, step] = entropy(scores[alive])
            alive &= ~torch.isin(chosen, stops)
            if step + 1 == max_tokens or not alive.any():
                break
            if alive.float().mean() < DROP_BELOW:
                keep = alive.nonzero().squeeze(-1)
                cache.batch_select_indices(keep)  # type: ignore[attr-defined]
                rows, chosen, positions = rows[keep], chosen[keep], positions[keep]
                attention_mask, alive = attention_mask[keep], alive[keep]
            attention_mask = torch.cat([attention_mask, torch.ones_like(attention_mask[:, :1])], dim=1)
            output = policy.model(
                input_ids=chosen[:, None],
                attention_mask=attention_mask,
                position_ids=positions[:, None],
                past_key_values=cache,
                use_cache=True,
            )
            logits, positions = output.logits[:, -1], positions + 1
        return self._collect(tokens, mask, logprobs, entropies, stops, group)

    def _collect(
        self, tokens: Tensor, mask: Tensor, logprobs: Tensor, entropies: Tensor, stops: Tensor, group: int
    ) -> Rollouts:
        longest = int(mask.sum(-1).max())
        tokens, mask = tokens[:, :longest], mask[:, :longest]
        ended = torch.isin(tokens, stops) & mask
        words = [row[keep].tolist() for row, keep in zip(tokens, mask & ~ended, strict=True)]
        texts = self._policy.tokenizer.batch_decode(words, skip_special_tokens=False)
        return Rollouts(
            tokens=tokens,
            mask=mask,
            logprobs=logprobs[:, :longest],
            entropies=entropies[:, :longest],
            truncated=~ended.any(-1),
            texts=texts,
            group_size=group,
        )


def _sample(scores: Tensor, uniforms: Tensor) -> Tensor:
    """Invert the cumulative distribution at `uniforms` `[R]`; scores `[R, V]`. In float64, so that the last of 150,000
    tokens is not lost to rounding; a token of probability 0 can't be chosen."""
    cumulative = scores.double().softmax(-1).cumsum(-1)
    aims = (uniforms * cumulative[:, -1])[:, None]
    chosen = torch.searchsorted(cumulative, aims, right=True).squeeze(-1)
    return chosen.where(chosen < scores.shape[-1], scores.argmax(-1))
