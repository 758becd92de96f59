"""Families reward/ and verdict/: rewards of the rollouts, and the work for them."""

from collections import Counter
from collections.abc import Sequence

from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.verifiers.scorer import Score, failure_counts


def reward(batch: StepBatch) -> dict[str, float]:
    """Return mean and standard deviation of the reward over all rollouts, accuracies, the number of failed verdicts
    and their share, and the mean score per verifier.
    """
    count = len(batch.scores)
    values = {
        "reward/mean": batch.rewards.mean().item(),
        "reward/std": batch.rewards.std(unbiased=False).item(),
        "reward/answer_accuracy": sum(score.passed for score in batch.scores) / count,
        "reward/strict_accuracy": sum(score.strict for score in batch.scores) / count,
        "reward/verifier_failures": float(sum(score.failure is not None for score in batch.scores)),
        "reward/verifier_failure_share": max(failure_counts(batch.scores).values(), default=0) / count,
    }
    for name in batch.scores[0].by_verifier:
        values[f"reward/{name}"] = sum(score.by_verifier[name] for score in batch.scores) / count
    return values | _verdicts(batch.scores)


def _verdicts(scores: Sequence[Score]) -> dict[str, float]:
    """Return time, failures and known verdicts of each verifier that did not find all of its verdicts at once, and
    tokens and refusals of the models among them.
    """
    failed, known = failure_counts(scores), Counter(label for score in scores for label in score.cached)
    seconds, tokens = Counter[str](), Counter[str]()
    for score in scores:
        seconds.update(score.seconds)
        tokens.update(score.tokens)
    refused = Counter(label for score in scores for label in score.refused)
    values = dict[str, float]()
    for label in sorted({*failed, *known, *seconds}):
        values[f"verdict/seconds/{label}"] = float(seconds[label])
        values[f"verdict/failures/{label}"] = float(failed[label])
        values[f"verdict/cached/{label}"] = float(known[label])
    for label in sorted({*tokens, *refused}):
        values[f"verdict/tokens/{label}"] = float(tokens[label])
        values[f"verdict/refusals/{label}"] = float(refused[label])
    return values
