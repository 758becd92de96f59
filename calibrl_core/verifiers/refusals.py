"""Verdicts on texts of the data: truths as their own answers, and experts."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from calibrl_core.verifiers.base import (
    AnswerForm,
    AnswerVerifier,
    Deferred,
    InputVerifier,
    Verifier,
    answer_form,
    judges_of,
    strip_boxed,
)
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.remote import RemoteVerifier
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.sandbox import NO_PERMISSIONS, SandboxPolicy
from calibrl_core.verifiers.scorer import Score, Scorer

SHOWN = 60  # characters of a truth in a message
OR_DROP = ", or set unearnable: drop"  # end of a fault of training data
_TOGETHER = 128  # completions that worker processes judge between two looks at the clock


@dataclass(frozen=True)
class Refusals:
    """Rewards that refuse a text, by the number of the text from 0; and how many texts were judged."""

    labels: Mapping[int, tuple[str, ...]]
    judged: int


def judging_rewards(rewards: Iterable[Reward]) -> list[Reward]:
    """Return the rewards that compare an answer with the truth. Others can refuse a right answer: a formula, or a
    plugin that also measures length.
    """
    return [reward for reward in rewards if isinstance(reward, AnswerVerifier) and reward.judges_answer]


def expert_judges(rewards: Iterable[Reward], *, with_workers: bool) -> tuple[list[Reward], str | None]:
    """Return the rewards that judge experts before a run, and a warning that names the others. A check before a run
    asks no service, and without worker processes it runs no function.
    """
    later = (RemoteVerifier,) if with_workers else (RemoteVerifier, InputVerifier)
    counting = [reward for reward in rewards if reward.judges_answer]
    left = [one.label for one in counting if any(isinstance(judge, later) for judge in judges_of([one]))]
    if not left:
        return counting, None
    names, verb = f"reward{'s' * (len(left) > 1)} {', '.join(left)}", "were" if len(left) > 1 else "was"
    what = "services judge" if with_workers else "services and functions judge"
    return [one for one in counting if one.label not in left], (
        f"the {names} {verb} not asked about the experts: {what} during the run only"
    )


def sees_images(rewards: Iterable[Reward]) -> bool:
    """Return if one of the rewards sees more than texts."""
    return any(isinstance(judge, InputVerifier) for judge in judges_of(rewards))


def truth_as_completion(truth: str, form: AnswerForm) -> str:
    """Return a completion whose answer is the truth."""
    if form == "answer":
        return f"<think>.</think><answer>{truth}</answer>"
    return f"<think>.</think>\\boxed{{{strip_boxed(truth)}}}" if form == "boxed" else f"<think>.</think>{truth}"


def truth_faults(
    rewards: Sequence[Reward], truths: Iterable[str], *, seconds: float, with_workers: bool
) -> dict[str, str]:
    """Return why no answer can satisfy a truth, by each such truth: a reward that compares an answer with the truth
    refuses the truth itself. Arguments as of `refusals`.
    """
    seen, waiting, form = set[int](), dict[int, str](), answer_form(rewards)

    def inputs() -> Iterator[RewardInput | None]:
        for index, truth in enumerate(truths):
            if (key := hash(truth)) in seen:
                yield None
                continue
            seen.add(key)
            waiting[index] = truth
            yield RewardInput(truth_as_completion(truth, form), truth)

    judged = judgements(judging_rewards(rewards), inputs(), seconds=seconds, with_workers=with_workers)
    verdicts = ((waiting.pop(index), labels) for index, labels in judged)
    return {truth: _fault(truth, labels) for truth, labels in verdicts if labels}


def refusals(
    rewards: Sequence[Reward],
    inputs: Iterable[RewardInput],
    *,
    seconds: float,
    with_workers: bool,
    sandbox: SandboxPolicy = NO_PERMISSIONS,
) -> Refusals:
    """Find the completions that a reward gives less than 0.5. Arguments and errors: as of `judgements`."""
    labels, judged = dict[int, tuple[str, ...]](), 0
    for index, refusing in judgements(rewards, inputs, seconds=seconds, with_workers=with_workers, sandbox=sandbox):
        judged += 1
        if refusing:
            labels[index] = refusing
    return Refusals(labels, judged)


def judgements(
    rewards: Sequence[Reward],
    inputs: Iterable[RewardInput | None],
    *,
    seconds: float,
    with_workers: bool,
    sandbox: SandboxPolicy = NO_PERMISSIONS,
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the number of each judged completion, from 0, with the labels of the rewards that give it less than 0.5. A
    missing verdict refuses nothing. At most _TOGETHER completions are in memory.

    Args:
        inputs: completions, read one after another; None: nothing to judge.
        seconds: time after which no more are judged; of the CPU without workers.
        with_workers: also ask worker processes, for verdicts that need one. Otherwise those count as accepted.
        sandbox: permissions for functions of users.

    Raises:
        PluginError: this machine cannot run a reward.
        RuntimeError: worker processes cannot be started.
    """
    if not rewards:
        return
    clock = time.monotonic if with_workers else time.thread_time
    until, waiting = clock() + seconds, dict[int, RewardInput]()
    with ExitStack() as stack:
        scorer = stack.enter_context(Scorer(rewards, sandbox=sandbox)) if with_workers else None
        for index, seen in enumerate(inputs):
            if clock() > until:
                break
            if seen is None:
                continue
            refusing = _settled_refusals(rewards, seen)
            if refusing is None and scorer:
                waiting[index] = seen
            else:
                yield index, refusing or ()
            if scorer and len(waiting) == _TOGETHER:
                yield from _scored_refusals(scorer, waiting)
                waiting.clear()
        if scorer and waiting and clock() <= until:
            yield from _scored_refusals(scorer, waiting)


def refusing_labels(score: Score) -> tuple[str, ...]:
    """Return the labels of the verifiers that refuse a completion; a missing verdict refuses nothing."""
    return tuple(name for name, value in score.by_verifier.items() if value < 0.5 and name not in score.failed)


def _scored_refusals(scorer: Scorer, waiting: Mapping[int, RewardInput]) -> list[tuple[int, tuple[str, ...]]]:
    return list(zip(waiting, map(refusing_labels, scorer.grade(list(waiting.values()))), strict=True))


def _settled_refusals(rewards: Sequence[Reward], seen: RewardInput) -> tuple[str, ...] | None:
    """Return the labels of the rewards that refuse a completion at once; None if none does and some are deferred."""
    scores = {reward.label: _settled(reward, seen) for reward in rewards}
    refusing = tuple(label for label, score in scores.items() if score is not None and score < 0.5)
    return None if not refusing and None in scores.values() else refusing


def _settled(reward: Verifier, seen: RewardInput) -> float | None:
    """Return the score that a reward or a formula gives at once, 0.0 to 1.0; 1.0 if it is missing; None if deferred."""
    try:
        if not reward.parts:
            score = reward.settle(seen)
            return None if isinstance(score, Deferred) else score
        parts = {name: _settled(part, seen) for name, part in reward.parts.items()}
        values = {name: value for name, value in parts.items() if value is not None}
        low, high = reward.bounds
        return (reward.combine(values) - low) / (high - low) if len(values) == len(parts) else None
    except (ArithmeticError, ValueError):
        return 1.0


def _fault(truth: str, labels: Sequence[str]) -> str:
    shown = " ".join(truth.split())
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]} ..."
    return (
        f"no completion can earn the answer '{shown}': the reward {', '.join(labels)} refuses even this answer itself; "
        "correct it, or choose another reward"
    )
