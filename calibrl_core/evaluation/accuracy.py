"""Accuracy of a policy: sampled and greedy accuracy, pass@k, majority@k, each with a bootstrap interval."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calibrl_core.data.schema import Example, completed
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.evaluation.bootstrap import intervals
from calibrl_core.rollout.base import RolloutEngine, SamplingRequest
from calibrl_core.settings.image_changes import ImageChange
from calibrl_core.verifiers.base import AnswerForm, final_answer, follows_format
from calibrl_core.verifiers.quantities import canonical_answer
from calibrl_core.verifiers.scorer import Score, Scorer

T = TypeVar("T")

ROWS_AT_ONCE = 256  # completions decoded together


@dataclass(frozen=True)
class Answers:
    """Answers of a policy: N prompts, K completions each."""

    examples: Sequence[Example]
    texts: list[list[str]]  # N x K
    scores: list[list[Score]]  # N x K
    lengths: NDArray[np.int64]  # [N, K] tokens
    truncated: NDArray[np.bool_]  # [N, K] truncated at the token limit
    logprobs: NDArray[np.float64]  # [N, K] nats per token: the completion's mean log-probability when sampled

    def passed(self) -> NDArray[np.bool_]:
        """Return `[N, K]` bool: the answer is right."""
        return np.array([[score.passed for score in row] for row in self.scores])

    def strict(self) -> NDArray[np.bool_]:
        """Return `[N, K]` bool: the answer is right and in the required format."""
        return np.array([[score.strict for score in row] for row in self.scores])

    def by_source(self) -> dict[str, "Answers"]:
        """Return the answers to the examples of each `data_source`, by its name, without the examples that
        have none.
        """
        rows: dict[str, list[int]] = {}
        for row, example in enumerate(self.examples):
            if example.data_source is not None:
                rows.setdefault(example.data_source, []).append(row)
        return {source: self._select(chosen) for source, chosen in sorted(rows.items())}

    def _select(self, rows: Sequence[int]) -> "Answers":
        return Answers(
            examples=[self.examples[row] for row in rows],
            texts=[self.texts[row] for row in rows],
            scores=[self.scores[row] for row in rows],
            lengths=self.lengths[rows],
            truncated=self.truncated[rows],
            logprobs=self.logprobs[rows],
        )


def sample_answers(
    engine: RolloutEngine,
    examples: Sequence[Example],
    scorer: Scorer,
    request: SamplingRequest,
    shown: Sequence[Example] | None = None,
) -> Answers:
    """Sample completions as `request` says, and score them: all of `answer_batches`."""
    width = request.group_size
    nothing = Answers((), [], [], np.zeros((0, width), np.int64), np.zeros((0, width), np.bool_), np.zeros((0, width)))
    return concatenate([nothing, *answer_batches(engine, examples, scorer, request, shown=shown)])


def answer_batches(
    engine: RolloutEngine,
    examples: Sequence[Example],
    scorer: Scorer,
    request: SamplingRequest,
    ranks: Ranks = ALONE,
    shown: Sequence[Example] | None = None,
) -> Iterator[Answers]:
    """Sample completions as `request` says, score them, and yield the answers of each batch of prompts. The processes
    of `ranks` share each batch, and all get its answers.

    Completions depend on `request.seed` and the global row number, so that several processes with `first_row` set
    sample what one would. Batches begin at multiples of `batch_size(request.group_size)` prompts.

    `shown`: the prompts that the policy sees, in the order of `examples`; verifiers judge by `examples`. None: these.
    """
    samples = request.group_size
    size = batch_size(samples)
    first = request.first_row // samples  # global number of the first example
    number, end = first, first + len(examples)
    while number < end:
        start = number - number % size
        part, seen = (
            rows[number - first : start + size - first] for rows in (examples, examples if shown is None else shown)
        )
        mine = ranks.my_slice(len(part))
        own_rows = slice(mine.start, mine.stop)
        rows = replace(request, seed=[*request.seed, start], first_row=(number - start + mine.start) * samples)
        own = _answers(engine, part[own_rows], [*seen[own_rows]], scorer, rows) if mine else None
        yield concatenate([answers for answers in ranks.gather_everywhere(own) if answers is not None])
        number += len(part)


def _answers(
    engine: RolloutEngine,
    examples: Sequence[Example],
    shown: Sequence[Example],
    scorer: Scorer,
    request: SamplingRequest,
) -> Answers:
    samples = request.group_size
    rollouts = engine.generate(shown, request)
    counts = rollouts.mask.sum(-1)
    logprobs = rollouts.logprobs.double().sum(-1) / counts
    return Answers(
        examples=list(examples),  # a view of stored rows stays in its process
        texts=_rows(rollouts.texts, samples),
        scores=_rows(scorer.grade(completed(examples, rollouts.texts)), samples),
        lengths=counts.view(-1, samples).cpu().numpy(),
        truncated=rollouts.truncated.view(-1, samples).cpu().numpy(),
        logprobs=logprobs.view(-1, samples).cpu().numpy(),
    )


def concatenate(parts: Sequence[Answers]) -> Answers:
    """Return the answers to the prompts of all parts, in order. All parts have the same number of completions per
    prompt.
    """
    return Answers(
        examples=[example for part in parts for example in part.examples],
        texts=[texts for part in parts for texts in part.texts],
        scores=[scores for part in parts for scores in part.scores],
        lengths=np.concatenate([part.lengths for part in parts]),
        truncated=np.concatenate([part.truncated for part in parts]),
        logprobs=np.concatenate([part.logprobs for part in parts]),
    )


def batch_size(samples: int) -> int:
    """Return the number of prompts whose `samples` completions are decoded together."""
    return max(1, ROWS_AT_ONCE // samples)


def _rows(flat: Sequence[T], width: int) -> list[list[T]]:
    return [list(flat[start : start + width]) for start in range(0, len(flat), width)]


def summarise(answers: Answers, seed: int, form: AnswerForm = "answer") -> dict[str, float]:
    """Return means over prompts, each with the bounds of its 95 % interval over resampled prompts as `_low` and
    `_high`, and the number of failed verdicts. `form`: where the answers are.

    Each share of right answers has a `strict_` counterpart: right answers in the required format.
    """
    measures = {
        **_shares("", answers, answers.passed(), form),
        **_shares("strict_", answers, answers.strict(), form),
        "format_rate": np.array([[follows_format(text, form) for text in row] for row in answers.texts]).mean(1),
        "length_mean": answers.lengths.mean(1),
        "truncated_share": answers.truncated.mean(1),
    }
    bounds = intervals(np.stack([*measures.values()], axis=1), seed)
    failures = sum(score.failure is not None for row in answers.scores for score in row)
    values = {"verifier_failures": float(failures)}
    for (name, per_prompt), (low, high) in zip(measures.items(), bounds.T, strict=True):
        values |= {name: float(per_prompt.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
    return values


def accuracy_with_change(change: ImageChange, answers: Answers, seed: int) -> dict[str, float]:
    """Return the accuracy of answers to changed images with its interval, as `accuracy_<change>`."""
    per_prompt = answers.passed().mean(1)
    ((low, high),) = intervals(per_prompt[:, None], seed).T
    name = f"accuracy_{change}"
    return {name: float(per_prompt.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def _shares(
    prefix: str, answers: Answers, right: NDArray[np.bool_], form: AnswerForm
) -> dict[str, NDArray[np.float64]]:
    """Return metrics `[N]` of `right` `[N, K]` bool."""
    samples = right.shape[1]
    count = right.sum(1)
    majority = [_majority(row, form) for row in answers.texts]
    sizes = [2**power for power in range(samples.bit_length())]
    return {
        f"{prefix}accuracy": right.mean(1),
        f"{prefix}pass_at_k": pass_at(samples, samples, count),
        **{f"{prefix}pass_at_{size}": pass_at(size, samples, count) for size in sorted({*sizes, samples})},
        f"{prefix}majority_at_k": right[np.arange(len(right)), majority].astype(float),
    }


def pass_at(k: int, samples: int, right: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability `[N]` that one of k completions, drawn without replacement from `samples`, is right.

    `right` `[N]` is the number of right ones. Unbiased: 1 - C(n - c, k) / C(n, k) (arXiv 2107.03374, equation 1).
    """
    chances = np.array([1 - math.comb(samples - c, k) / math.comb(samples, k) for c in range(samples + 1)])
    return chances[right]


def _majority(texts: Sequence[str], form: AnswerForm) -> int:
    """Return the index of the first completion with the most common answer. On a tie the answer given first wins; a
    missing answer counts as an answer.
    """
    found = [final_answer(text, form) for text in texts]
    answers = [None if answer is None else canonical_answer(answer) for answer in found]
    return answers.index(Counter(answers).most_common(1)[0][0])
