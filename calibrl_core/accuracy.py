"""How well a policy answers: sampled and greedy accuracy, pass@k, majority@k, each with a bootstrap interval."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibrl_core.data.schema import Example
from calibrl_core.rewards import Score, score
from calibrl_core.rollout.base import RolloutEngine
from calibrl_core.verifiers import Reward
from calibrl_core.verifiers.base import extract_answer

ROWS_AT_ONCE = 256  # completions decoded together
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Answers:
    """What a policy answered: N prompts, K completions each."""

    examples: Sequence[Example]
    texts: list[list[str]]  # N x K
    scores: list[list[Score]]  # N x K
    lengths: NDArray[np.int64]  # [N, K] tokens

    def passed(self) -> NDArray[np.bool_]:
        """`[N, K]`."""
        return np.array([[score.passed for score in row] for row in self.scores])


def ask(
    engine: RolloutEngine,
    examples: Sequence[Example],
    rewards: Sequence[Reward],
    *,
    samples: int,
    temperature: float,
    max_tokens: int,
    seed: Sequence[int],
    advance: Callable[[], None] = lambda: None,
) -> Answers:
    """Sample `samples` completions a prompt (temperature 0: one greedy) and score them. `advance` is called once a
    batch of `batches(...)`."""
    texts: list[list[str]] = []
    lengths: list[list[int]] = []
    size = max(1, ROWS_AT_ONCE // samples)
    for start in range(0, len(examples), size):
        part = examples[start : start + size]
        rollouts = engine.generate(
            part, group_size=samples, temperature=temperature, max_tokens=max_tokens, seed=[*seed, start]
        )
        counts = rollouts.mask.sum(-1).tolist()
        texts += [rollouts.texts[row : row + samples] for row in range(0, len(rollouts.texts), samples)]
        lengths += [counts[row : row + samples] for row in range(0, len(counts), samples)]
        advance()
    scores = [
        [score(text, example.answer, rewards) for text in row] for example, row in zip(examples, texts, strict=True)
    ]
    return Answers(examples, texts, scores, np.array(lengths))


def batches(prompts: int, samples: int) -> int:
    """How many times `ask` calls `advance`."""
    return -(-prompts // max(1, ROWS_AT_ONCE // samples))


def summarise(answers: Answers, seed: int) -> dict[str, float]:
    """Means over prompts, each with the bounds of its 95 % interval over resampled prompts as `_low` and `_high`."""
    passed = answers.passed()
    strict = np.array([[score.strict for score in row] for row in answers.scores])
    per_prompt = {
        "accuracy": passed.mean(1),
        "strict_accuracy": strict.mean(1),
        "pass_at_k": passed.any(1).astype(float),
        "majority_at_k": np.array([_majority_passes(*row) for row in zip(answers.texts, passed, strict=True)]),
    }
    values = {"length_mean": float(answers.lengths.mean())}
    for name, numbers in per_prompt.items():
        low, high = interval(numbers, seed)
        values |= {name: float(numbers.mean()), f"{name}_low": low, f"{name}_high": high}
    return values


def interval(per_prompt: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Bounds of the bootstrap's 95 % interval of the mean, resampling prompts (`[N]`)."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(per_prompt), size=(RESAMPLES, len(per_prompt)))
    low, high = np.percentile(per_prompt[picks].mean(1), INTERVAL)
    return float(low), float(high)


def _majority_passes(texts: Sequence[str], passed: NDArray[np.bool_]) -> float:
    """1.0 where the commonest answer (the first of equals; no answer counts as one) is right."""
    answers = [extract_answer(text) for text in texts]
    winner = Counter(answers).most_common(1)[0][0]
    return float(passed[answers.index(winner)])
