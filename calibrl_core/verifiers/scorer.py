"""Scores completions: every verifier's verdict, their weighted sum, and whether the answer passed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from calibrl_core.verifiers import Reward
from calibrl_core.verifiers.base import Pending, follows_format
from calibrl_core.verifiers.plugin import plugin_versions
from calibrl_core.verifiers.pool import Question, Verdict, WorkerPool


@dataclass(frozen=True)
class Score:
    """One completion's verdict."""

    by_verifier: dict[str, float]  # by label, before weights
    reward: float  # weighted sum
    passed: bool  # every verifier that judges the answer accepts it; form has no say
    strict: bool  # passed, and in the asked format
    failure: str | None = None  # why a verifier gave no verdict (too slow, died), which counts as 0


class Scorer:
    """Scores batches by some verifiers. What plain text settles is settled here; the rest is judged in worker
    processes, which start when first needed. A context manager: `close` ends them.

    Raises PluginError where a plugin is not installed.
    """

    def __init__(self, rewards: Sequence[Reward], workers: int | None = None) -> None:
        self.versions = plugin_versions(rewards)  # of each plugin, by label
        self._rewards = rewards
        self._pool = WorkerPool(rewards, workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes. A later batch starts new ones."""
        self._pool.close()

    def score_all(self, completions: Sequence[str], truths: Sequence[str]) -> list[Score]:
        """The score of each completion against its truth, in order. Equal questions are judged once.

        Raises:
            PluginError: a verifier can't be loaded.
            RuntimeError: worker processes can't be started.
        """
        verdicts = [
            [self._settle(place, completion, truth) for place in range(len(self._rewards))]
            for completion, truth in zip(completions, truths, strict=True)
        ]
        judged = self._pool.judge(one for row in verdicts for one in row if isinstance(one, Question))
        return [
            self._score(completion, [judged[one] if isinstance(one, Question) else one for one in row])
            for completion, row in zip(completions, verdicts, strict=True)
        ]

    def _settle(self, place: int, completion: str, truth: str) -> Verdict | Question:
        found = self._rewards[place].score(completion, truth)
        return Question(place, found.text, found.truth) if isinstance(found, Pending) else Verdict(found)

    def _score(self, completion: str, verdicts: Sequence[Verdict]) -> Score:
        pairs = [(verifier, verdict.value) for verifier, verdict in zip(self._rewards, verdicts, strict=True)]
        passed = all(value >= 0.5 for verifier, value in pairs if verifier.judges_answer)
        return Score(
            by_verifier={verifier.label: value for verifier, value in pairs},
            reward=sum(verifier.weight * value for verifier, value in pairs),
            passed=passed,
            strict=passed and follows_format(completion),
            failure=next((verdict.failure for verdict in verdicts if verdict.failure), None),
        )
