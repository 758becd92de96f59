"""Scores completions: the verdicts of all verifiers, their weighted sum, and whether the answer passed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from calibrl_core.verifiers.base import NeedsWorker, answer_form, follows_format
from calibrl_core.verifiers.plugin import plugin_versions
from calibrl_core.verifiers.pool import Verdict, VerdictRequest, WorkerPool
from calibrl_core.verifiers.registry import Reward


@dataclass(frozen=True)
class Score:
    """Verdicts on a completion."""

    by_verifier: dict[str, float]  # by label, before weights
    reward: float  # weighted sum
    passed: bool  # every verifier that judges the answer accepts it; the format has no effect
    strict: bool  # passed, and in the required format
    failure: str | None = None  # reason why a verifier gave no verdict (too slow, died), which counts as 0
    failed: tuple[str, ...] = ()  # labels of the verifiers that gave no verdict


def failure_counts(scores: Iterable[Score]) -> Counter[str]:
    """Return how many verdicts each verifier failed to give, by its label."""
    return Counter(label for score in scores for label in score.failed)


class NoVerdictError(Exception):
    """A verifier gave no verdict on any completion: the scores say nothing. The message has its reason."""


def check_verdicts(scores: Sequence[Score]) -> None:
    """Check that each verifier gave a verdict on at least one completion.

    Raises:
        NoVerdictError: one gave none.
    """
    for label, count in failure_counts(scores).items():
        if count == len(scores):
            reason = next((score.failure for score in scores if score.failed[0] == label), "the log has the reason")
            raise NoVerdictError(
                f"rewards: {label} gave no verdict on any of {count} completions ({reason}); "
                "fix or remove this verifier"
            )


class Scorer:
    """Scores batches with given verifiers. Verdicts that plain text decides are found here; the others in worker
    processes, which start at the first request. A context manager: `close` ends them.

    Raises:
        PluginError: a plugin is not installed.
    """

    def __init__(self, rewards: Sequence[Reward], workers: int | None = None) -> None:
        self.versions = plugin_versions(rewards)  # of each plugin, by label
        self._rewards = rewards
        self._form = answer_form(rewards)
        self._pool = WorkerPool(rewards, workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes. A later batch starts new ones."""
        self._pool.close()

    def score_all(self, completions: Sequence[str], truths: Sequence[str]) -> list[Score]:
        """Return the score of each completion against its truth, in order. Equal requests are judged once.

        Raises:
            PluginError: a verifier cannot be loaded.
            RuntimeError: worker processes cannot be started.
        """
        verdicts = [
            [self._settle(place, completion, truth) for place in range(len(self._rewards))]
            for completion, truth in zip(completions, truths, strict=True)
        ]
        judged = self._pool.judge(one for row in verdicts for one in row if isinstance(one, VerdictRequest))
        return [
            self._score(completion, [judged[one] if isinstance(one, VerdictRequest) else one for one in row])
            for completion, row in zip(completions, verdicts, strict=True)
        ]

    def _settle(self, index: int, completion: str, truth: str) -> Verdict | VerdictRequest:
        score = self._rewards[index].score(completion, truth)
        return VerdictRequest(index, score.text, score.truth) if isinstance(score, NeedsWorker) else Verdict(score)

    def _score(self, completion: str, verdicts: Sequence[Verdict]) -> Score:
        pairs = [(verifier, verdict.value) for verifier, verdict in zip(self._rewards, verdicts, strict=True)]
        passed = all(value >= 0.5 for verifier, value in pairs if verifier.judges_answer)
        return Score(
            by_verifier={verifier.label: value for verifier, value in pairs},
            reward=sum(verifier.weight * value for verifier, value in pairs),
            passed=passed,
            strict=passed and follows_format(completion, self._form),
            failure=next((verdict.failure for verdict in verdicts if verdict.failure), None),
            failed=tuple(
                verifier.label for verifier, verdict in zip(self._rewards, verdicts, strict=True) if verdict.failure
            ),
        )
