"""Scores completions: every verifier's verdict, their weighted sum, and whether the answer passed."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibrl_core.verifiers import Reward
from calibrl_core.verifiers.base import follows_format


@dataclass(frozen=True)
class Score:
    """One completion's verdict."""

    by_verifier: dict[str, float]  # before weights
    reward: float  # weighted sum
    passed: bool  # every verifier that judges the answer accepts it; form has no say
    strict: bool  # passed, and in the asked format


def score(completion: str, truth: str, rewards: Sequence[Reward]) -> Score:
    """Ask every verifier."""
    verdicts = [(verifier, verifier.score(completion, truth)) for verifier in rewards]
    passed = all(value >= 0.5 for verifier, value in verdicts if verifier.judges_answer)
    return Score(
        by_verifier={verifier.type: value for verifier, value in verdicts},
        reward=sum(verifier.weight * value for verifier, value in verdicts),
        passed=passed,
        strict=passed and follows_format(completion),
    )
