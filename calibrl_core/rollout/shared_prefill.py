"""The rollout engine: each prompt and its images run once per group, and finished rows leave the batch.

`[R]`: rows that are being decoded. `[B, T]`: all rows, completion tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from calibrl_core.data.schema import Example
from calibrl_core.models.attention import mask_for
from calibrl_core.models.encoding import PromptRows
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.cache import select_rows, with_spare_capacity
from calibrl_core.rollout.sampling import BLOCK, Uniforms, batches, draw, token_sets
from calibrl_core.rollout.stop_strings import StopStrings
from calibrl_core.rollout.token_buffers import TokenBuffers

BATCH_TOKENS = 131_072  # prompt and longest completion of all rows decoded at the same time
DROP_BELOW = 0.75  # finished rows are dropped if fewer than this share are alive: a drop copies the cache
# Tokens between checks for finished rows. The check makes a GPU wait; on a CPU it is free.
LOOK_EVERY = {"cpu": 1, "cuda": 8}


class SharedPrefillEngine:
    """Prefill once per prompt, repeat the cache for the group, decode token by token."""

    def __init__(self, policy: Policy, batch_tokens: int = BATCH_TOKENS) -> None:
        self._policy = policy
        self._batch_tokens = batch_tokens

    @contextmanager
    def sampling(self, version: int) -> Iterator[None]:
        """Hold all weights in this process: see `RolloutEngine.sampling`."""
        with self._policy.weights.gathered():
            yield

    @torch.no_grad()
    def generate(self, examples: Sequence[Example], request: SamplingRequest) -> Rollouts:
        """Sample: see `RolloutEngine.generate`."""
        policy, group_size, max_tokens = self._policy, request.group_size, request.max_tokens
        parts: list[tuple[list[int], TokenBuffers]] = []
        for prompts, share in batches(policy.prompt_lengths(examples), group_size, max_tokens, self._batch_tokens):
            asked = [examples[prompt] for prompt in prompts]
            encoded = policy.encode(asked)
            for start in range(0, group_size, share):
                members = range(start, min(start + share, group_size))
                rows = [prompt * group_size + member for prompt in prompts for member in members]
                with policy.forward_context():
                    images = policy.images.inputs_for(asked, encoded, range(len(asked)))
                    decoding = _Decoding(policy, replace(encoded, images=dict(images)), request, rows)
                    parts.append((rows, decoding.run()))
        return self._collect(parts, len(examples) * group_size, request)

    def _collect(
        self, parts: Sequence[tuple[list[int], TokenBuffers]], count: int, request: SamplingRequest
    ) -> Rollouts:
        """Return the rows of all batches in their original order."""
        policy = self._policy
        longest = max(int(buffers.mask.sum(-1).max()) for _, buffers in parts)
        whole = TokenBuffers.empty(count, longest, policy)
        for rows, buffers in parts:
            place = torch.tensor(rows, device=policy.device)
            for name, target in vars(whole).items():
                source = getattr(buffers, name)[:, :longest]
                target[place, : source.shape[1]] = source
        return whole.rollouts(policy, request.group_size, request.sampling.stop)


class _Decoding:
    """Decoding of a batch of rows, from prefill to the last token."""

    def __init__(self, policy: Policy, prompts: PromptRows, request: SamplingRequest, rows: Sequence[int]) -> None:
        """`rows`: numbers of the rows, counted from `request.first_row`."""
        self._policy, self._request = policy, request
        self._uniforms = Uniforms(request.seed, [request.first_row + row for row in rows])
        count, max_tokens = len(rows), request.max_tokens
        self._buffers = TokenBuffers.empty(count, max_tokens, policy)
        self._stop_strings = StopStrings(policy.tokenizer, request.sampling.stop)
        self._stops = torch.tensor(sorted(policy.stop_ids), device=policy.device)
        self._width = prompts.input_ids.shape[1]
        repeats = count // len(prompts.input_ids)
        self._prefill(prompts, repeats)
        self._positions = prompts.next_positions.repeat_interleave(repeats)  # [R]
        self._axes = prompts.position_ids.shape[:-2]  # leading axes of positions: none, or 3
        seen = prompts.attention_mask.bool().repeat_interleave(repeats, dim=0)  # [R, L]
        self._seen = torch.cat([seen, seen.new_ones((count, max_tokens))], dim=1)
        self._padded = not bool(seen.all())
        self._repeated: Tensor | None = None  # [R, V] bool, tokens that the prompt or the completion has
        if request.sampling.repetition_penalty != 1:
            self._repeated = token_sets(prompts.input_ids, prompts.attention_mask.bool(), len(policy.banned))
            self._repeated = self._repeated.repeat_interleave(repeats, dim=0)
        self._rows = torch.arange(count, device=policy.device)  # rows still in the batch
        self._alive = torch.ones(count, dtype=torch.bool, device=policy.device)  # of these rows: not finished

    def _prefill(self, prompts: PromptRows, repeats: int) -> None:
        """Fill the cache, and compute the hidden states of the first tokens."""
        policy = self._policy
        output = policy.decoder(
            input_ids=prompts.input_ids,
            attention_mask=prompts.attention_mask,
            use_cache=True,
            **policy.accepted_inputs(position_ids=prompts.position_ids, **prompts.token_types),
            **prompts.images,
        )
        rows = torch.arange(len(prompts.input_ids), device=policy.device).repeat_interleave(repeats)  # [R]
        new_tokens = self._buffers.tokens.shape[1]
        self._cache = with_spare_capacity(output[policy.cache_name], rows, new_tokens, bfloat16=policy.bfloat16)
        self._hidden: Tensor = output.last_hidden_state[:, -1].repeat_interleave(repeats, dim=0)  # [R, D]

    def run(self) -> TokenBuffers:
        """Decode until every row has finished or has `max_tokens`."""
        policy, buffers = self._policy, self._buffers
        max_tokens, look = buffers.tokens.shape[1], LOOK_EVERY[policy.device.type]
        block = self._uniforms.block().to(policy.device)  # [BLOCK, R]
        for step in range(max_tokens):
            if step and step % BLOCK == 0:
                block = self._uniforms.block().to(policy.device)
            chosen = self._draw(step, block[step % BLOCK])
            if step + 1 == max_tokens:
                break
            if step % look == 0 and (rows := self._drop_finished_rows()) is not None:
                if not len(rows):
                    break
                chosen, block = chosen[rows], block[:, rows]
            self._advance(chosen, step)
        return buffers

    def _draw(self, step: int, uniforms: Tensor) -> Tensor:
        """Draw token number `step` of each row, and return the tokens `[R]`."""
        policy, request = self._policy, self._request
        drawn = draw(
            policy.head.logits(self._hidden),
            request.temperature,
            policy.banned,
            uniforms,
            request.sampling,
            self._repeated,
        )
        self._buffers.put((self._rows, torch.full_like(self._rows, step)), drawn, self._alive)
        self._alive = self._alive & ~torch.isin(drawn.tokens, self._stops)
        if self._stop_strings:
            recent = self._buffers.tokens[self._rows, max(0, step + 1 - self._stop_strings.tail) : step + 1]
            stopped = self._stop_strings.end(recent.tolist())
            self._alive = self._alive & ~torch.tensor(stopped, device=policy.device)
        if self._repeated is not None:
            self._repeated.scatter_(1, drawn.tokens[:, None], True)
        return drawn.tokens

    def _drop_finished_rows(self) -> Tensor | None:
        """Drop finished rows if there are enough of them; return the remaining rows, None if all remain."""
        rows = self._alive.nonzero().squeeze(-1)
        if len(rows) and len(rows) >= DROP_BELOW * len(self._alive):
            return None
        if len(rows):
            select_rows(self._cache, rows)
            self._uniforms.keep(rows.tolist())
            self._rows, self._alive = self._rows[rows], self._alive[rows]
            self._positions, self._seen = self._positions[rows], self._seen[rows]
            if self._repeated is not None:
                self._repeated = self._repeated[rows]
        return rows

    def _advance(self, tokens: Tensor, step: int) -> None:
        """Run the tokens `tokens` `[R]` of `step`."""
        policy = self._policy
        seen = self._seen[:, : self._width + step + 1]
        mask: Tensor | None = seen.long()
        if policy.shares_prompts:  # a prepared mask: otherwise transformers inspects it, and the GPU must be awaited
            mask = mask_for(policy.model.config, seen[:, None, None]) if self._padded else None
        positions = (self._positions + step)[:, None].expand(*self._axes, -1, 1)
        output = policy.decoder(
            input_ids=tokens[:, None],
            attention_mask=mask,
            use_cache=True,
            **{policy.cache_name: self._cache},
            **policy.accepted_inputs(position_ids=positions),
        )
        self._hidden = output.last_hidden_state[:, -1]
