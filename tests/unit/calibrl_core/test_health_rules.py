"""Health rules over length, gradients, sampler, experts and validation, each on a planted fault and beside none."""

import json
import math
from typing import Any

import pytest

from calibrl_core.health import HealthMonitor
from calibrl_core.health.settings import HealthSettings
from tests.support.health import WELL, alert_changes

LONG = {"length/mean": 300.0}


def test_an_explosion_within_the_first_ten_steps_is_seen() -> None:
    """The entropies of a run at a learning rate of 3e-3: the mean of the first ten steps, 3.47, is no reference."""
    entropies = [0.17, 0.95, 0.89, 2.28, 4.2, 4.9, 5.16, 5.31, 5.41, 5.47, 5.5, 5.54]
    assert alert_changes(*((1, {"exploration/entropy": value}) for value in entropies)) == [
        (10, "entropy_explosion", "fired")
    ]


def test_a_collapse_within_the_first_ten_steps_is_seen() -> None:
    # The first step has 2.0, so the limit is 0.2. The mean of ten: (2.0 + 0.5 + 8 * 0.05) / 10 = 0.29; of the next
    # ten: (0.5 + 9 * 0.05) / 10 = 0.095.
    curves = [(1, {"exploration/entropy": value}) for value in (2.0, 0.5, *[0.05] * 10)]
    assert alert_changes(*curves) == [(11, "entropy_collapse", "fired")]


def test_length_explosion() -> None:
    # From 100 tokens, limit 200: with k of ten steps at 300 the mean is 100 + 20 k > 200 at k = 6, step 20 + 6. It
    # clears below 200 / 1.5 = 133 with k of ten back at 100: 300 - 20 k < 133 at k = 9, step 60 + 9.
    assert alert_changes((20, {}), (40, LONG), (20, {})) == [
        (26, "length_explosion", "fired"),
        (69, "length_explosion", "cleared"),
    ]


def test_longer_completions_that_are_more_often_right_are_no_fault() -> None:
    growing = [(5, {"length/mean": 100.0 + 5 * n, "reward/strict_accuracy": 0.3 + 0.005 * n}) for n in range(80)]
    assert alert_changes(*growing) == []
    rambling = [(5, {"length/mean": 100.0 + 5 * n, "reward/strict_accuracy": 0.3}) for n in range(80)]
    assert [alert[1:] for alert in alert_changes(*rambling)] == [("length_explosion", "fired")]


SPIKE = {"loss/grad_norm": 3.0}


def test_gradient_spikes() -> None:
    # The median is 0.3, so 3.0 is above 5 * 0.3. The third spike within 20 steps is at step 20 + 1 + 4 + 1 + 4 + 1.
    # Those of steps 21 and 26 have left the window of 20 steps at step 46: one is left.
    spikes = [(1, SPIKE), (4, {})] * 3
    assert alert_changes((20, {}), *spikes, (40, {})) == [
        (31, "gradient_spikes", "fired"),
        (46, "gradient_spikes", "cleared"),
    ]


@pytest.mark.parametrize(
    "curves",
    [
        [(1, SPIKE), (11, {})] * 10,  # two in 20 steps
        [(1, {"loss/grad_norm": 1.4}), (4, {})] * 10,  # below 5 * 0.3
        [(4, {"loss/grad_norm": 0.0}), (1, {})] * 20,  # most steps have no advantage, the others the usual norm
        [(10, {"loss/grad_norm": 0.3 * 1.2**n}) for n in range(20)],  # it grows slowly
    ],
)
def test_other_gradients_are_no_spikes(curves: Any) -> None:
    assert alert_changes((20, {}), *curves) == []


def test_sampler_mismatch() -> None:
    # With k of five steps at 0.1 the mean is 0.001 + 0.0198 k > 0.05 at k = 3. Below 0.05 / 1.5 at k = 1.
    assert alert_changes((20, {}), (20, {"kl/sampler": 0.1}), (20, {})) == [
        (23, "sampler_mismatch", "fired"),
        (44, "sampler_mismatch", "cleared"),
    ]
    assert alert_changes((5, {"kl/sampler": 0.1})) == [(5, "sampler_mismatch", "fired")]  # from the first step


def test_expert_drift() -> None:
    # Lowest 0.6, limit 0.9: with k of 20 steps at 1.5 the mean is 0.6 + 0.045 k > 0.9 at k = 7. It clears when the rise
    # of 0.3 is below 0.2, with k of 20 back at 0.6: 0.9 - 0.045 k < 0.2 at k = 16.
    assert alert_changes((20, {}), (40, {"expert/nll": 1.5}), (20, {})) == [
        (27, "expert_drift", "fired"),
        (76, "expert_drift", "cleared"),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"expert/nll": 1.3, "reward/strict_accuracy": 0.6},  # more answers are right, in the policy's own words
        {"expert/nll": 0.85},
        {"expert/nll": math.nan},  # no expert in the step
    ],
)
def test_other_distances_from_the_experts_are_no_drift(changes: Any) -> None:
    assert alert_changes((20, {}), (100, changes)) == []


def test_experts_that_are_likely_may_become_a_little_less_likely() -> None:
    assert alert_changes((20, {"expert/nll": 0.05}), (100, {"expert/nll": 0.4})) == []


def validation(accuracy: float) -> dict[str, float]:
    """A validation on 600 prompts: its interval is 0.04 wide to each side."""
    bounds = {"validation/accuracy_low": accuracy - 0.04, "validation/accuracy_high": accuracy + 0.04}
    return {"validation/accuracy": accuracy} | bounds


def validated(steps: int, accuracy: float, reward: float) -> list[Any]:
    """Steps with one reward, the last one with a validation."""
    measured = validation(accuracy)
    return [(steps - 1, {"reward/mean": reward}), (1, {"reward/mean": reward} | measured)]


def test_overfitting() -> None:
    # Means of two validations: best 0.6 at a reward of 0.5. After one at 0.4 the accuracy is 0.5 (up to 0.54; the
    # best is above 0.56), the reward 0.6: up by more than 0.1 * 0.5. It clears when the fall
    # of 0.05 is below 0.033: at 0.6 again.
    good, bad = validated(10, 0.6, 0.5), validated(10, 0.4, 0.7)
    assert alert_changes(*good * 3, *bad * 3, *good * 3) == [
        (40, "overfitting", "fired"),
        (80, "overfitting", "cleared"),
    ]


@pytest.mark.parametrize(
    ("accuracy", "reward"),
    [
        (0.4, 0.5),  # the reward did not rise: the run became worse
        (0.62, 0.8),  # both rise
        (0.56, 0.8),  # a small fall
        (0.53, 0.8),  # the intervals overlap
    ],
)
def test_other_validations_are_not_overfitting(accuracy: float, reward: float) -> None:
    assert alert_changes(*validated(10, 0.6, 0.5) * 3, *validated(10, accuracy, reward) * 5) == []


def test_overfitting_compares_all_steps_between_validations() -> None:
    """The step of the validation has a low reward by chance."""
    monitor, alerts = HealthMonitor(HealthSettings()), []
    for step in range(1, 81):
        measured, late = step % 10 == 0, step > 40
        metrics = WELL | {"reward/mean": 0.2 if measured and late else 0.8 if late else 0.5}
        if measured:
            metrics |= validation(0.4 if late else 0.6)
        monitor = HealthMonitor(HealthSettings(), json.loads(json.dumps(monitor.state(), allow_nan=False)))
        alerts += monitor.observe(step, metrics)
    assert [(alert.step, alert.rule) for alert in alerts] == [(50, "overfitting")]
