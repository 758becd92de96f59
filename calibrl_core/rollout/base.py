"""Interface of the rollout engines: `SamplingRequest` in, `Rollouts` out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from calibrl_core.data.schema import Example
from calibrl_core.settings.sampling import PLAIN, SamplingSettings


@dataclass(frozen=True)
class Rollouts:
    """Completions of P prompts, G each, flattened: row `p * G + g`. `[B, T]` with B = P * G, right-padded."""

    tokens: Tensor  # [B, T] long; the stop token, where reached, is the last one that counts
    mask: Tensor  # [B, T] bool, True = the token counts
    logprobs: Tensor  # [B, T] float, nats, under the policy: softmax of logits / temperature; 0 where masked
    sampler_logprobs: Tensor  # [B, T] float, nats, under the distribution sampled from: filtered, renormalised
    entropies: Tensor  # [B, T] float, nats, of the policy's distribution; 0 where masked
    truncated: Tensor  # [B] bool: reached the token limit without a stop token or a stop string
    # Without the stop token, with the stop string, and with what the prompt opens of it (`PromptEncoder.opening`).
    texts: list[str]
    group_size: int


@dataclass(frozen=True, kw_only=True)
class SamplingRequest:
    """How to sample. The same request gives the same completions.

    A completion depends on `seed` and its global row number only, not on batching or on the number of processes.
    """

    group_size: int  # completions per example
    temperature: float  # divides logits; 0 is greedy
    max_tokens: int  # a completion is cut there
    sampling: SamplingSettings = PLAIN
    seed: Sequence[int]
    first_row: int = 0  # global row number of the first row, if other processes or calls sample the rows before it


class RolloutEngine(Protocol):
    """Samples completions from the policy. One engine per process of a run."""

    def sampling(self, version: int) -> AbstractContextManager[None]:
        """Return a context in which `generate` samples from the weights that the policy has at its entry.

        Every process must enter and leave it, since the processes exchange weights there. `version`: name of the
        weights, the number of steps that the run has taken.
        """

    def generate(self, examples: Sequence[Example], request: SamplingRequest) -> Rollouts:
        """Return `request.group_size` completions for each example. Needs no other process."""


@runtime_checkable
class SamplesAhead(RolloutEngine, Protocol):
    """A rollout engine that can sample while the policy is updated (`rollout.max_staleness`)."""

    def begin(self, examples: Sequence[Example], request: SamplingRequest) -> None:
        """Begin to sample with the weights of the current `sampling`; the `generate` of the same examples and request
        in a later one returns these completions. Their `sampler_logprobs` are of the weights that they were sampled
        with, their `logprobs` and `entropies` of those of the later one. Needs no other process.
        """
