"""The probe of a bisection: measures per prompt, and when a policy is worse than the reference."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibrl_core.bisection.facts import Measure, ProbedPolicy
from calibrl_core.evaluation.accuracy import Answers
from calibrl_core.evaluation.bootstrap import paired_differences
from calibrl_core.health.settings import RuleName


@dataclass(frozen=True)
class ProbeMeasure:
    """Measure of the probe for a rule. `worse`: sign of a change for the worse."""

    name: Measure
    worse: int
    # Share of the change at the bad end from which a policy counts as worse. Entropy and length change in good runs
    # too, so that a difference from the reference alone says nothing.
    least: float = 0.5


ACCURACY = ProbeMeasure("accuracy", worse=-1, least=0.0)
MEASURES: dict[RuleName, ProbeMeasure] = {
    "entropy_collapse": ProbeMeasure("entropy", worse=-1),
    "entropy_explosion": ProbeMeasure("entropy", worse=1),
    "length_explosion": ProbeMeasure("length", worse=1),
    "all_truncated": ProbeMeasure("truncated", worse=1),
}


class Judge:
    """Compares policies with a reference, prompt by prompt: all answer the same prompts with the same seeds."""

    def __init__(self, measure: ProbeMeasure, seed: int, step: int, reference: Answers) -> None:
        self._measure, self._seed = measure, seed
        self._reference = per_prompt(measure.name, reference)
        self._limit = 0.0  # change for the worse that counts
        value = float(self._reference.mean())
        same = ProbedPolicy(step=step, replayed=False, value=value, difference=0.0, low=0.0, high=0.0, worse=False)
        self.probes = [same]

    def worse(self, step: int, answers: Answers, *, replayed: bool = False) -> bool:
        """Return if the policy after `step` is worse than the reference: the 95 % interval of the difference excludes
        0, and the difference is large enough.
        """
        values = per_prompt(self._measure.name, answers)
        (found,) = paired_differences([self._reference, values], self._seed)
        change = self._measure.worse * found.difference
        worse = found.distinguishable and change > 0 and change >= self._limit
        self.probes.append(
            ProbedPolicy(
                step=step,
                replayed=replayed,
                value=float(values.mean()),
                difference=found.difference,
                low=found.low,
                high=found.high,
                worse=worse,
            )
        )
        return worse

    def set_end(self) -> None:
        """Let the policy that was judged last be the bad end, whose change limits what counts as worse."""
        self._limit = self._measure.least * abs(self.probes[-1].difference)


def per_prompt(measure: Measure, answers: Answers) -> NDArray[np.float64]:
    """Return the measure of each prompt, `[N]`. Entropy is estimated by the log-probabilities of the sampled tokens."""
    values: dict[Measure, NDArray[np.float64]] = {
        "accuracy": answers.passed().mean(1),
        "entropy": -answers.logprobs.mean(1),
        "length": answers.lengths.mean(1),
        "truncated": answers.truncated.mean(1),
    }
    return values[measure]
