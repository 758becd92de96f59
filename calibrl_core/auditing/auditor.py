"""Audits batches of rows: samples completions, scores them and the experts, and restates experts that are far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calibrl_core.auditing.audit_file import StoredRow, expert_digest
from calibrl_core.auditing.experts import gaps_to_experts, score_experts
from calibrl_core.auditing.settings import AuditConfig
from calibrl_core.auditing.verdicts import accepted, verdict_on
from calibrl_core.data.prompts import IMAGE_TAG
from calibrl_core.data.schema import Example, completed
from calibrl_core.diagnostics.expert_mismatch import GAP_EDGES, quadrants
from calibrl_core.diagnostics.histograms import histogram
from calibrl_core.models.policy import Policy
from calibrl_core.models.positions import position_limit
from calibrl_core.rollout.base import RolloutEngine, SamplingRequest
from calibrl_core.verifiers.base import answer_form, follows_format
from calibrl_core.verifiers.scorer import Score, Scorer

RESTATE = (
    "Here is a right solution of this problem. Write it again in your own words, with all steps and the same final "
    "answer."
)


@dataclass(frozen=True)
class AuditedRows:
    """Rows of a batch, and the scores of all their texts, for the check of verdicts."""

    rows: list[StoredRow]
    scores: list[Score]


class Auditor:
    """Audits rows with a policy that stays as it is."""

    def __init__(
        self, config: AuditConfig, settings: str, policy: Policy, engine: RolloutEngine, scorer: Scorer
    ) -> None:
        """`settings`: digest of the settings, for the rows."""
        self._config, self._settings = config, settings
        self._policy, self._engine, self._scorer = policy, engine, scorer
        self._form = answer_form(config.rewards)

    def audit(self, examples: Sequence[Example], numbers: Sequence[int], request: SamplingRequest) -> AuditedRows:
        """Return the rows of P examples with an expert each. `numbers`: of their rows in the source, from 1."""
        experts = [example.expert or "" for example in examples]
        with self._policy.images.cached():
            scored = score_experts(self._policy, examples, range(len(examples)), experts, self._config.rollout)
            rollouts = self._engine.generate(examples, request)
        scores = self._scorer.grade(completed(examples, rollouts.texts))
        of_experts = self._scorer.grade(completed(examples, experts))
        passed = torch.tensor([score.passed for score in scores], device=rollouts.mask.device)  # [B]
        gaps, counted = gaps_to_experts(self._config.algorithm, rollouts, passed, scored)
        size = request.group_size
        groups = [slice(place * size, (place + 1) * size) for place in range(len(examples))]
        facts = map(_Expert, of_experts, scored.lengths, scored.nll, scored.nll_per_token)
        rows = [
            self._row(example, number, expert, _Group(scores[part], gaps[part], counted[part], passed[part]))
            for example, number, expert, part in zip(examples, numbers, facts, groups, strict=True)
        ]
        return AuditedRows(rows, [*scores, *of_experts])

    def _row(self, example: Example, number: int, expert: _Expert, group: _Group) -> StoredRow:
        verdict, reasons = verdict_on(expert.score, expert.tokens, expert.nll_per_token, self._config)
        gaps, correct = group.gaps
        return StoredRow(
            row=number,
            prompt_id=example.id,
            data_source=example.data_source,
            verdict=verdict,
            reasons=reasons,
            tokens=expert.tokens,
            nll=expert.nll,
            nll_per_token=expert.nll_per_token,
            follows_format=follows_format(example.expert or "", self._form),
            passed=expert.score.passed,
            pass_rate=sum(one.passed for one in group.scores) / len(group.scores),
            active=len({one.reward for one in group.scores}) > 1,
            gap_mean=gaps.mean().item() if len(gaps) else None,
            quadrants={name: int(members.sum()) for name, members in quadrants(gaps, correct).items()},
            gap_counts=histogram(gaps, GAP_EDGES)[1],
            expert_digest=expert_digest(example),
            settings=self._settings,
        )

    def restate(
        self, examples: Sequence[Example], rows: Sequence[StoredRow], request: SamplingRequest
    ) -> list[StoredRow]:
        """Return the rows, each with the most likely restatement of its expert that all rewards accept, if it is more
        likely per token than the expert.
        """
        limit = position_limit(self._policy)
        prompts = [self._restating(example) for example in examples]
        fitting = [
            place
            for place, length in enumerate(self._policy.prompt_lengths(prompts))
            if limit is None or length + request.max_tokens <= limit
        ]
        found = self._restated([examples[place] for place in fitting], [prompts[place] for place in fitting], request)
        best = {fitting[owner]: one for owner, one in found.items()}
        return [
            row.model_copy(update={"rewrite": best[place][1], "rewritten_nll_per_token": best[place][0]})
            if place in best and best[place][0] < row.nll_per_token
            else row
            for place, row in enumerate(rows)
        ]

    def _restating(self, example: Example) -> Example:
        """Return the prompt that asks to restate the expert of an example."""
        expert = IMAGE_TAG.sub("", example.expert or "")
        parts = [example.question, RESTATE, expert]
        if example.asks_for_answer and self._config.prompts.instruction:
            parts.append(self._config.prompts.instruction)  # here, because the expert can look like such a request
        return replace(example, question="\n\n".join(parts), expert=None, asks_for_answer=False)

    def _restated(
        self, examples: Sequence[Example], prompts: Sequence[Example], request: SamplingRequest
    ) -> dict[int, tuple[float, str]]:
        """Return the best restatement by example: nats per token, and text."""
        if not examples:
            return {}
        with self._policy.images.cached():
            rollouts = self._engine.generate(prompts, request)
        scores = self._scorer.grade(completed(examples, rollouts.texts))
        truncated = rollouts.truncated.tolist()
        kept = [row for row, score in enumerate(scores) if accepted(score) and not truncated[row]]
        if not kept:
            return {}
        owners, texts = [row // request.group_size for row in kept], [rollouts.texts[row] for row in kept]
        scored = score_experts(self._policy, examples, owners, texts, self._config.rollout)
        best: dict[int, tuple[float, str]] = {}
        for owner, text, length, nll in zip(owners, texts, scored.lengths, scored.nll_per_token, strict=True):
            if length <= request.max_tokens and (owner not in best or nll < best[owner][0]):
                best[owner] = (nll, text)
        return best


@dataclass(frozen=True)
class _Expert:
    """An expert with its score: tokens of the whole, and its negative log-likelihood in nats, in sum and per token."""

    score: Score
    tokens: int
    nll: float
    nll_per_token: float


@dataclass(frozen=True)
class _Group:
    """The completions of a prompt: G scores, gaps `[G, T]`, tokens with a gap `[G, T]`, passed `[G]`."""

    scores: Sequence[Score]
    all_gaps: Tensor
    counted: Tensor
    passed: Tensor

    @property
    def gaps(self) -> tuple[Tensor, Tensor]:
        """Return the gaps of the tokens that have one, `[N]` nats, and if their completion passed, `[N]` bool."""
        correct = self.passed[:, None].expand_as(self.counted)
        return self.all_gaps[self.counted].double(), correct[self.counted]
