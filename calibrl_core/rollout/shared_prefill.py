"""The rollout engine: each prompt and its images run once for their whole group, and finished rows leave the batch.

`[R]`: rows that are being decoded. `[B, T]`: all rows, completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calibrl_core.data.schema import Example
from calibrl_core.models.encoding import PromptRows
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts
from calibrl_core.rollout.cache import growing
from calibrl_core.rollout.sampling import BLOCK, Uniforms, batches, draw

BATCH_TOKENS = 131_072  # prompt and longest completion of every row that is decoded at once
DROP_BELOW = 0.75  # finished rows are dropped once fewer than this share are still alive: dropping copies the cache
# Tokens between looks at which rows have finished. A GPU would have to wait for the answer; a CPU has it at hand.
LOOK_EVERY = {"cpu": 1, "cuda": 8}


class SharedPrefillEngine:
    """Prefill once a prompt, repeat the cache for the group, decode token by token."""

    def __init__(self, policy: Policy, batch_tokens: int = BATCH_TOKENS) -> None:
        self._policy = policy
        self._batch_tokens = batch_tokens

    @torch.no_grad()
    def generate(
        self,
        examples: Sequence[Example],
        *,
        group_size: int,
        temperature: float,
        max_tokens: int,
        seed: Sequence[int],
        first_row: int = 0,
    ) -> Rollouts:
        """See `RolloutEngine.generate`."""
        policy = self._policy
        policy.model.eval()
        parts: list[tuple[list[int], _Columns]] = []
        for prompts, share in batches(policy.prompt_lengths(examples), group_size, max_tokens, self._batch_tokens):
            asked = [examples[prompt] for prompt in prompts]
            encoded = policy.encode(asked)
            for start in range(0, group_size, share):
                members = range(start, min(start + share, group_size))
                rows = [prompt * group_size + member for prompt in prompts for member in members]
                with policy.computing():
                    uniforms = Uniforms(seed, [first_row + row for row in rows])
                    images = policy.images.of(asked, encoded, range(len(asked)))
                    decoding = _Decoding(policy, replace(encoded, images=dict(images)), uniforms, len(rows), max_tokens)
                    parts.append((rows, decoding.run(temperature)))
        return self._collect(parts, len(examples) * group_size, group_size)

    def _collect(self, parts: Sequence[tuple[list[int], _Columns]], count: int, group_size: int) -> Rollouts:
        """The batches' rows in their order, and as text."""
        policy = self._policy
        longest = max(int(columns.mask.sum(-1).max()) for _, columns in parts)
        whole = _Columns.empty(count, longest, policy)
        for rows, columns in parts:
            place = torch.tensor(rows, device=policy.device)
            for name, target in vars(whole).items():
                source = getattr(columns, name)[:, :longest]
                target[place, : source.shape[1]] = source
        ended = torch.isin(whole.tokens, torch.tensor(sorted(policy.stop_ids), device=policy.device)) & whole.mask
        lengths = (whole.mask & ~ended).sum(-1).tolist()
        words = [row[:length] for row, length in zip(whole.tokens.tolist(), lengths, strict=True)]
        return Rollouts(
            **vars(whole),
            truncated=~ended.any(-1),
            texts=policy.tokenizer.batch_decode(words, skip_special_tokens=False),
            group_size=group_size,
        )


@dataclass(frozen=True)
class _Columns:
    """What is known of each token: see `Rollouts`. `[R, T]` each."""

    tokens: Tensor
    mask: Tensor
    logprobs: Tensor
    entropies: Tensor

    @classmethod
    def empty(cls, rows: int, width: int, policy: Policy) -> _Columns:
        return cls(
            torch.full((rows, width), policy.pad_id, device=policy.device),
            torch.zeros((rows, width), dtype=torch.bool, device=policy.device),
            torch.zeros((rows, width), device=policy.device),
            torch.zeros((rows, width), device=policy.device),
        )


class _Decoding:
    """One batch of rows, from prefill to the last token."""

    def __init__(self, policy: Policy, prompts: PromptRows, uniforms: Uniforms, count: int, max_tokens: int) -> None:
        self._policy, self._uniforms = policy, uniforms
        self._columns = _Columns.empty(count, max_tokens, policy)
        self._stops = torch.tensor(sorted(policy.stop_ids), device=policy.device)
        self._width = prompts.input_ids.shape[1]
        repeats = count // len(prompts.input_ids)
        self._prefill(prompts, repeats)
        self._positions = prompts.next_positions.repeat_interleave(repeats)  # [R]
        self._axes = prompts.position_ids.shape[:-2]  # of positions: none, or 3
        seen = prompts.attention_mask.bool().repeat_interleave(repeats, dim=0)  # [R, L]
        self._seen = torch.cat([seen, seen.new_ones((count, max_tokens))], dim=1)
        self._padded = not bool(seen.all())
        self._rows = torch.arange(count, device=policy.device)  # those still in the batch
        self._alive = torch.ones(count, dtype=torch.bool, device=policy.device)  # of those, not finished

    def _prefill(self, prompts: PromptRows, repeats: int) -> None:
        """Fill the cache, and find what predicts the first tokens."""
        policy = self._policy
        output = policy.decoder(
            input_ids=prompts.input_ids,
            attention_mask=prompts.attention_mask,
            use_cache=True,
            **policy.inputs(position_ids=prompts.position_ids, token_type_ids=prompts.token_types),
            **prompts.images,
        )
        self._cache = growing(output.past_key_values, repeats, self._columns.tokens.shape[1])
        self._hidden: Tensor = output.last_hidden_state[:, -1].repeat_interleave(repeats, dim=0)  # [R, D]

    def run(self, temperature: float) -> _Columns:
        """Decode until every row has finished or has `max_tokens`."""
        policy, columns = self._policy, self._columns
        max_tokens, look = columns.tokens.shape[1], LOOK_EVERY[policy.device.type]
        block = self._uniforms.block().to(policy.device)  # [BLOCK, R]
        for step in range(max_tokens):
            if step and step % BLOCK == 0:
                block = self._uniforms.block().to(policy.device)
            logits = policy.head.logits(self._hidden)
            chosen, logprobs, entropies = draw(logits, temperature, policy.banned, block[step % BLOCK])
            columns.tokens[self._rows, step] = chosen.where(self._alive, policy.pad_id)
            columns.mask[self._rows, step] = self._alive
            columns.logprobs[self._rows, step] = logprobs * self._alive
            columns.entropies[self._rows, step] = entropies * self._alive
            self._alive = self._alive & ~torch.isin(chosen, self._stops)
            if step + 1 == max_tokens:
                break
            if step % look == 0 and (kept := self._finished_leave()) is not None:
                if not len(kept):
                    break
                chosen, block = chosen[kept], block[:, kept]
            self._advance(chosen, step)
        return columns

    def _finished_leave(self) -> Tensor | None:
        """Drop finished rows if there are enough of them; return the places of those that stay, None if all do."""
        kept = self._alive.nonzero().squeeze(-1)
        if len(kept) and len(kept) >= DROP_BELOW * len(self._alive):
            return None
        if len(kept):
            self._cache.batch_select_indices(kept)
            self._uniforms.keep(kept.tolist())
            self._rows, self._alive = self._rows[kept], self._alive[kept]
            self._positions, self._seen = self._positions[kept], self._seen[kept]
        return kept

    def _advance(self, chosen: Tensor, step: int) -> None:
        """Run the tokens `chosen` `[R]` of `step`."""
        policy = self._policy
        seen = self._seen[:, : self._width + step + 1]
        mask: Tensor | None = seen.long()
        if policy.shares_prompts:  # ready for use: transformers would look into it, and a GPU be waited for
            mask = policy.attention_mask(seen[:, None, None]) if self._padded else None
        positions = (self._positions + step)[:, None].expand(*self._axes, -1, 1)
        output = policy.decoder(
            input_ids=chosen[:, None],
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            **policy.inputs(position_ids=positions),
        )
        self._hidden = output.last_hidden_state[:, -1]
