"""Verdicts on texts of the data: truths as their own answers, and experts."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from calibrl_core.verifiers.base import AnswerForm, AnswerVerifier, answer_form, strip_boxed
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.scorer import Scorer

SHOWN = 60  # characters of a truth in a message
_TOGETHER = 500  # texts whose verdicts worker processes find between two looks at the clock


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


def truth_as_completion(truth: str, form: AnswerForm) -> str:
    """Return a completion whose answer is the truth."""
    if form == "answer":
        return f"<think>.</think><answer>{truth}</answer>"
    return f"<think>.</think>\\boxed{{{strip_boxed(truth)}}}" if form == "boxed" else f"<think>.</think>{truth}"


def truth_faults(
    rewards: Sequence[Reward], truths: Iterable[str], *, seconds: float, with_workers: bool
) -> dict[str, str]:
    """Return why no answer can satisfy a truth, by each such truth: a reward refuses the truth itself. Arguments as of
    `refusals`.
    """
    listed, form = list(dict.fromkeys(truths)), answer_form(rewards)
    pairs = [(truth_as_completion(truth, form), truth) for truth in listed]
    found = refusals(rewards, pairs, seconds=seconds, with_workers=with_workers)
    return {listed[index]: _fault(listed[index], labels) for index, labels in found.labels.items()}


def refusals(
    rewards: Sequence[Reward], pairs: Sequence[tuple[str, str]], *, seconds: float, with_workers: bool
) -> Refusals:
    """Judge completions against their truths, by the rewards that compare an answer with the truth.

    Args:
        pairs: completions and truths.
        seconds: time after which no more are judged; of the CPU without workers.
        with_workers: also ask worker processes, for verdicts that need one. Otherwise those count as accepted.

    Raises:
        RuntimeError: worker processes cannot be started.
    """
    judging, clock = judging_rewards(rewards), time.monotonic if with_workers else time.thread_time
    until, labels, deferred = clock() + seconds, dict[int, tuple[str, ...]](), list[int]()
    if not judging:
        return Refusals({}, 0)
    judged = 0
    for index, (completion, truth) in enumerate(pairs):
        if clock() > until:
            break
        scores = [reward.settle(RewardInput(completion, truth)) for reward in judging]
        refusing = [one.label for one, score in zip(judging, scores, strict=True) if score == 0.0]
        if refusing:
            labels[index] = tuple(refusing)
        elif not all(isinstance(score, float) for score in scores):
            deferred.append(index)
        judged += 1
    if not (deferred and with_workers):
        return Refusals(labels, judged)
    with Scorer(judging) as scorer:
        for start in range(0, len(deferred), _TOGETHER):
            part = deferred[start : start + _TOGETHER]
            if clock() > until:
                judged -= len(deferred) - start
                break
            scored = scorer.score_all([pairs[index][0] for index in part], [pairs[index][1] for index in part])
            for index, score in zip(part, scored, strict=True):
                names = (name for name, value in score.by_verifier.items() if value < 0.5 and name not in score.failed)
                if refused := tuple(names):
                    labels[index] = refused
    return Refusals(labels, judged)


def _fault(truth: str, labels: Sequence[str]) -> str:
    shown = " ".join(truth.split())
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]} ..."
    return (
        f"no completion can earn the answer '{shown}': the reward {', '.join(labels)} refuses even this answer itself; "
        "correct it, or choose another reward"
    )
