"""Checks of answers and experts by the rewards of the run, before its first step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from calibrl_core.config import TrainConfig
from calibrl_core.data.files import SHOWN
from calibrl_core.data.schema import DataSource, Example, completed
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.run.row_check import check_rows
from calibrl_core.verifiers.refusals import expert_judges, refusals, sees_images, truth_faults
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.sandbox import SandboxPolicy

SECONDS = 60.0  # for each check; rows beyond are not checked
_TOGETHER = 256  # experts that are tokenized between two looks at the clock


def check_answers(
    config: TrainConfig, policy: Policy, field: str, source: DataSource, rows: Sequence[Example], ranks: Ranks
) -> list[str]:
    """Check the answers of all rows, and the experts of training rows. Return warnings.

    Raises:
        DataError: no completion can earn the answer of some training rows.
    """
    trains, warnings = field == "data", list[str]()
    judges = config.algorithm.samples or not trains
    faults = ranks.from_first(answer_faults(config.rewards, rows) if ranks.first and judges else {})
    if trains:
        check_rows(field, source, rows, lambda example: faults.get(example.answer))
    elif warning := answers_warning(field, rows, faults):
        warnings.append(warning)
    if trains and config.algorithm.needs_experts and ranks.first:
        warnings += _refused_experts(field, rows, config.rewards if judges else (), config.sandbox)
        warnings += _cut_experts(field, rows, policy, config.rollout.max_completion_tokens)
    return warnings


def answer_faults(rewards: Sequence[Reward], examples: Sequence[Example]) -> dict[str, str]:
    """Return why no completion can earn an answer, by each such answer. Judges for at most SECONDS."""
    return truth_faults(rewards, (example.answer for example in examples), seconds=SECONDS, with_workers=True)


def answers_warning(field: str, examples: Sequence[Example], faults: Mapping[str, str]) -> str | None:
    """Return a warning of the rows whose answers no completion can earn, or None without any."""
    rows = [number for number, example in enumerate(examples, start=1) if example.answer in faults]
    if not rows:
        return None
    reason = faults[examples[rows[0] - 1].answer]
    return f"{field}: {len(rows)} of {len(examples)} rows ({_listed(rows)}) fail with any completion: {reason}"


def _refused_experts(
    field: str, examples: Sequence[Example], rewards: Sequence[Reward], sandbox: SandboxPolicy
) -> Iterator[str]:
    """Yield a warning of the experts that a reward refuses, and of the rewards that were not asked. Judges for at most
    SECONDS.
    """
    asked, not_asked = expert_judges(rewards, with_workers=True)
    with_images, numbers = sees_images(asked), list[int]()

    def inputs() -> Iterator[RewardInput]:
        for number, one in enumerate(examples, start=1):
            if one.expert:
                numbers.append(number)
                yield completed([one if with_images else replace(one, images=())], [one.expert])[0]

    found = refusals(asked, inputs(), seconds=SECONDS, with_workers=True, sandbox=sandbox)
    if found.labels:
        rows = [numbers[index] for index in sorted(found.labels)]
        names = ", ".join(sorted({name for labels in found.labels.values() for name in labels}))
        yield (
            f"{field}: {len(rows)} of {found.judged} experts fail the rewards of the job ({names}): rows "
            f"{_listed(rows)}; the run can learn to avoid them: correct or remove them"
        )
    if not_asked and any(one.expert for one in examples):
        yield f"{field}: {not_asked}"


def _cut_experts(field: str, examples: Sequence[Example], policy: Policy, limit: int) -> Iterator[str]:
    """Yield a warning of the experts that have more than `limit` tokens. Counts for at most SECONDS, and not the tokens
    of an expert with fewer bytes than that.
    """
    until, spare = time.monotonic() + SECONDS, limit - len(policy.turn_end)
    experts = [(number, one.expert) for number, one in enumerate(examples, start=1) if one.expert]
    long = [(number, expert) for number, expert in experts if len(expert.encode()) > spare]
    rows = list[int]()
    for start in range(0, len(long), _TOGETHER):
        if time.monotonic() > until:
            break
        part = long[start : start + _TOGETHER]
        tokens = policy.tokenizer([policy.encoder.continued(expert) for _, expert in part], add_special_tokens=False)
        rows += [number for (number, _), ids in zip(part, tokens.input_ids, strict=True) if len(ids) > spare]
    if rows:
        yield (
            f"{field}: {len(rows)} of {len(experts)} experts have more than {limit} tokens and are cut: rows "
            f"{_listed(rows)}; none of these teaches its answer: raise rollout.max_completion_tokens or shorten them"
        )


def _listed(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:SHOWN])) + (" ..." if len(rows) > SHOWN else "")
