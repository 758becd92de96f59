"""Checks of answers and experts by the rewards of the run, before its first step."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from calibrl_core.config import TrainConfig
from calibrl_core.data.files import SHOWN
from calibrl_core.data.schema import DataError, DataSource, Example, completed
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.run.row_check import check_rows
from calibrl_core.verifiers.refusals import OR_DROP, expert_judges, refusals, sees_images, truth_faults
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.sandbox import SandboxPolicy

SECONDS = 60.0  # for each check; rows beyond are not checked
_TOGETHER = 256  # experts that are in memory at once, and tokenized between two looks at the clock


@dataclass(frozen=True)
class CheckedAnswers:
    """`dropped`: rows to leave out, counted from 1."""

    dropped: list[int]
    warnings: list[str]


def check_answers(
    config: TrainConfig,
    policy: Policy,
    field: str,
    source: DataSource,
    rows: Sequence[Example],
    ranks: Ranks,
    dropped: Sequence[int] | None,
) -> CheckedAnswers:
    """Check the answers of all rows, and the experts of training rows. `dropped`: rows that a resumed run dropped when
    it started; None: find them.

    Raises:
        DataError: no completion can earn the answers of some training rows, and `unearnable` is `error`; or of all.
    """
    trains, warnings = field == "data", list[str]()
    judges = config.algorithm.samples or not trains
    asks = judges and dropped is None
    faults = ranks.from_first(answer_faults(config.rewards, rows) if ranks.first and asks else {})
    if not trains:
        warning = answers_warning(field, rows, faults)
        return CheckedAnswers([], [warning] if warning else [])
    if config.unearnable == "drop":
        found = _with_fault(rows, faults) if dropped is None else [one for one in dropped if one <= len(rows)]
        warnings += _drop_warning(f"{field}: {source.name}", rows, found, faults)
    else:
        check_rows(field, source, rows, lambda example: _refusal(example, faults))
        found = []
    if config.algorithm.needs_experts and ranks.first:
        warnings += _refused_experts(field, rows, set(found), config.rewards if judges else (), config.sandbox)
        warnings += _cut_experts(field, rows, set(found), policy, config.rollout.max_completion_tokens)
    return CheckedAnswers(found, warnings)


def answer_faults(rewards: Sequence[Reward], examples: Sequence[Example]) -> dict[str, str]:
    """Return why no completion can earn an answer, by each such answer. Judges for at most SECONDS."""
    return truth_faults(rewards, (example.answer for example in examples), seconds=SECONDS, with_workers=True)


def answers_warning(field: str, examples: Sequence[Example], faults: Mapping[str, str]) -> str | None:
    """Return a warning of the rows whose answers no completion can earn, or None without any."""
    rows = _with_fault(examples, faults)
    if not rows:
        return None
    reason = faults[examples[rows[0] - 1].answer]
    return f"{field}: {len(rows)} of {len(examples)} rows ({_listed(rows)}) fail with any completion: {reason}"


def _with_fault(examples: Sequence[Example], faults: Mapping[str, str]) -> list[int]:
    """Return the rows whose answers have a fault, counted from 1."""
    return [number for number, one in enumerate(examples, start=1) if one.answer in faults] if faults else []


def _refusal(example: Example, faults: Mapping[str, str]) -> str | None:
    fault = faults.get(example.answer)
    return fault and f"{fault}{OR_DROP}"


def _drop_warning(
    name: str, examples: Sequence[Example], dropped: Sequence[int], faults: Mapping[str, str]
) -> Iterator[str]:
    """Yield a warning of the rows that are dropped. `faults`: empty if the run resumes.

    Raises:
        DataError: these are all rows.
    """
    if not dropped:
        return
    reason = faults.get(examples[dropped[0] - 1].answer, "the run dropped them when it started")
    if len(dropped) == len(examples):
        raise DataError(f"{name}: all {len(examples)} rows would be dropped: {reason}")
    yield f"{name}: {len(dropped)} of {len(examples)} rows ({_listed(dropped)}) are dropped: {reason}"


def _with_expert(examples: Sequence[Example], dropped: Collection[int]) -> Iterator[tuple[int, Example]]:
    """Yield the rows with an expert, except the dropped ones, with their numbers from 1."""
    numbered = enumerate(examples, start=1)
    return ((number, one) for number, one in numbered if one.expert and number not in dropped)


def _refused_experts(
    field: str, examples: Sequence[Example], dropped: Collection[int], rewards: Sequence[Reward], sandbox: SandboxPolicy
) -> Iterator[str]:
    """Yield a warning of the experts that a reward refuses, and of the rewards that were not asked. Judges for at most
    SECONDS.
    """
    asked, not_asked = expert_judges(rewards, with_workers=True)
    with_images, numbers = sees_images(asked), list[int]()

    def inputs() -> Iterator[RewardInput]:
        for number, one in _with_expert(examples, dropped):
            numbers.append(number)
            yield completed([one if with_images else replace(one, images=())], [one.expert or ""])[0]

    found = refusals(asked, inputs(), seconds=SECONDS, with_workers=True, sandbox=sandbox)
    if found.labels:
        rows = [numbers[index] for index in sorted(found.labels)]
        names = ", ".join(sorted({name for labels in found.labels.values() for name in labels}))
        yield (
            f"{field}: {len(rows)} of {found.judged} experts fail the rewards of the job ({names}): rows "
            f"{_listed(rows)}; the run can learn to avoid them: correct or remove them"
        )
    if not_asked and any(_with_expert(examples, dropped)):
        yield f"{field}: {not_asked}"


def _cut_experts(
    field: str, examples: Sequence[Example], dropped: Collection[int], policy: Policy, limit: int
) -> Iterator[str]:
    """Yield a warning of the experts that have more than `limit` tokens. Counts for at most SECONDS, and not the tokens
    of an expert with fewer bytes than that.
    """
    until, spare = time.monotonic() + SECONDS, limit - len(policy.turn_end)
    experts = ((number, one.expert or "") for number, one in _with_expert(examples, dropped))
    rows, counted = list[int](), 0
    while time.monotonic() <= until and (part := list(islice(experts, _TOGETHER))):
        counted += len(part)
        long = [(number, expert) for number, expert in part if len(expert.encode()) > spare]
        texts = [policy.encoder.continued(expert) for _, expert in long]
        tokens = policy.tokenizer(texts, add_special_tokens=False).input_ids if texts else []
        rows += [number for (number, _), ids in zip(long, tokens, strict=True) if len(ids) > spare]
    if rows:
        yield (
            f"{field}: {len(rows)} of {counted} experts have more than {limit} tokens and are cut: rows "
            f"{_listed(rows)}; none of these teaches its answer: raise rollout.max_completion_tokens or shorten them"
        )


def _listed(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:SHOWN])) + (" ..." if len(rows) > SHOWN else "")
