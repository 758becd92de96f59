"""Health rules over hand-made curves: each fires on its illness, once, not on noise; clears; and outlives a resume."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from calibrl_core.config import TrainConfig
from calibrl_core.health import RULES, HealthMonitor
from calibrl_core.health.settings import HealthSettings
from calibrl_core.report import EventFile
from calibrl_core.train import train
from calibrl_core.verifiers.scorer import Score, Scorer
from tests.support.health import WELL, alert_changes
from tests.support.training import config, of_type


def test_a_healthy_run_fires_no_rule() -> None:
    assert alert_changes((500, {})) == []


def test_noise_fires_no_rule() -> None:
    """Every metric jumps about as it does with 64 rollouts per step; single steps are far beyond every limit."""
    chance = random.Random(0)
    monitor = HealthMonitor(HealthSettings())
    for step in range(1, 2001):
        accuracy = min(max(chance.gauss(0.45, 0.1), 0.0), 1.0)
        metrics = {
            "exploration/entropy": 0.001 if step % 50 == 49 else abs(chance.gauss(0.5, 0.15)),
            "length/truncated_share": 1.0 if step % 10 == 9 else chance.uniform(0.0, 0.9),
            "exploration/active_groups": float(chance.random() < 0.7),
            "reward/mean": accuracy + chance.gauss(0.05, 0.02),
            "reward/std": 0.5,
            "reward/strict_accuracy": accuracy,
            "length/mean": 800.0 if step % 20 == 19 else chance.uniform(80, 120),
            "loss/grad_norm": 0.0 if step % 7 == 0 else 30.0 if step % 10 == 9 else chance.lognormvariate(-1, 0.5),
            "kl/sampler": 0.2 if step % 10 == 9 else chance.uniform(0.0005, 0.01),
            "expert/nll": 3.0 if step % 30 == 29 else chance.gauss(0.6, 0.1),
        }
        if step % 10 == 0:
            right = chance.gauss(0.45, 0.03)  # as of 300 prompts
            bounds = {"validation/accuracy_low": right - 0.06, "validation/accuracy_high": right + 0.06}
            metrics |= {"validation/accuracy": right} | bounds
        assert monitor.observe(step, metrics) == []


def test_entropy_collapse() -> None:
    # It starts at 0.5, so the limit is 0.05. Nine steps at 0.01 and one at 0.5 have a mean of 0.059; ten of 0.01: at
    # step 20 + 10.
    # Back above 1.5 * 0.05 = 0.075 with two steps at 0.5: (8 * 0.01 + 2 * 0.5) / 10 = 0.108, at step 40 + 2.
    assert alert_changes((20, {}), (20, {"exploration/entropy": 0.01}), (20, {})) == [
        (30, "entropy_collapse", "fired"),
        (42, "entropy_collapse", "cleared"),
    ]


def test_entropy_between_the_limit_and_well_above_it_changes_nothing() -> None:
    """0.06 is above the limit of 0.05, and below 0.075."""
    between = (50, {"exploration/entropy": 0.06})
    collapsed = (20, {"exploration/entropy": 0.01})
    assert alert_changes((20, {}), between) == []
    assert alert_changes((20, {}), collapsed, between, collapsed) == [(30, "entropy_collapse", "fired")]


def test_a_run_that_begins_collapsed_fires_the_rule() -> None:
    assert alert_changes((10, {"exploration/entropy": 0.01})) == [(10, "entropy_collapse", "fired")]
    assert alert_changes((100, {"exploration/entropy": 0.03})) == []  # low, and as it was from the start


def test_entropy_explosion() -> None:
    # limit 3 * 0.5 = 1.5; the mean of ten passes it with k steps at 4.0: (0.5 * (10 - k) + 4 k) / 10 > 1.5 at k = 3;
    # it clears below 1.0: (4 (10 - k) + 0.5 k) / 10 < 1.0 at k = 9
    assert alert_changes((20, {}), (20, {"exploration/entropy": 4.0}), (20, {})) == [
        (23, "entropy_explosion", "fired"),
        (49, "entropy_explosion", "cleared"),
    ]


def test_a_rise_from_little_entropy_is_not_an_explosion() -> None:
    assert alert_changes((20, {"exploration/entropy": 0.1}), (50, {"exploration/entropy": 0.9})) == []


def test_all_truncated() -> None:
    # 0.95 over five steps: only when all five are at 1.0. Back below 0.95 / 1.5 = 0.63 with two of five at 0.05: 0.62
    assert alert_changes((10, {}), (10, {"length/truncated_share": 1.0}), (10, {})) == [
        (15, "all_truncated", "fired"),
        (22, "all_truncated", "cleared"),
    ]
    assert alert_changes((50, {"length/truncated_share": 0.9})) == []


def test_no_advantage() -> None:
    idle = {"exploration/active_groups": 0.0}
    assert alert_changes((9, idle), (1, {}), (9, idle), (1, {})) == []
    # one active step now and then is no recovery; six of ten are
    assert alert_changes((10, idle), (5, {}), (10, idle), (6, {}), (10, idle)) == [
        (10, "no_advantage", "fired"),
        (31, "no_advantage", "cleared"),
        (41, "no_advantage", "fired"),
    ]


def test_no_advantage_gives_a_remedy() -> None:
    monitor = HealthMonitor(HealthSettings())
    idle = WELL | {"exploration/active_groups": 0.0, "reward/mean": 0.0}
    (alert,) = [alert for step in range(1, 11) for alert in monitor.observe(step, idle)]
    assert alert.message == "no learning signal: rewards were equal within each group for 10 steps (mean 0)"
    assert "{type: sft}" in alert.suggestion
    recovered = [alert for step in range(11, 30) for alert in monitor.observe(step, WELL)]
    assert [(one.state, one.suggestion) for one in recovered] == [("cleared", "")]


GAMED = {"reward/mean": 0.7, "reward/strict_accuracy": 0.34}


def test_reward_up_while_strict_accuracy_falls() -> None:
    # From reward 0.5, accuracy 0.45: with k of twenty steps gamed the reward is up by 0.01 k, accuracy down by
    # 0.0055 k. Fires when up by more than 0.1 * 0.5 and down by more than 0.05: k = 10. It clears when one of them is
    # within the limit by a factor of 1.5: down by less than 0.0333 at k = 6, up by less than 0.0333 at k = 3.
    assert alert_changes((20, {}), (100, GAMED), (20, {})) == [
        (30, "reward_not_accuracy", "fired"),
        (134, "reward_not_accuracy", "cleared"),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"reward/mean": 0.3, "reward/strict_accuracy": 0.25},  # both fall: worse, and honestly so
        {"reward/mean": 0.7, "reward/strict_accuracy": 0.6},  # both rise
        {"reward/mean": 0.7},  # the reward alone
        {"reward/mean": 0.54, "reward/strict_accuracy": 0.35},  # less than a tenth of a standard deviation
    ],
)
def test_other_changes_of_the_reward_are_not_reward_hacking(changes: dict[str, Any]) -> None:
    assert alert_changes((20, {}), (100, changes)) == []


def test_reward_hacking_is_measured_from_the_best_accuracy() -> None:
    """Slowly: no twenty steps differ much from the twenty before."""
    monitor = HealthMonitor(HealthSettings())
    alerts = []
    for step in range(1, 401):
        done = step / 400
        metrics = WELL | {"reward/mean": 0.5 + 0.3 * done, "reward/strict_accuracy": 0.5 - 0.2 * done}
        alerts += monitor.observe(step, metrics)
    assert [(alert.rule, alert.state) for alert in alerts] == [("reward_not_accuracy", "fired")]


@pytest.mark.parametrize(
    ("rule", "ill"),
    [
        ("entropy_collapse", {"exploration/entropy": 0.01}),
        ("entropy_explosion", {"exploration/entropy": 4.0}),
        ("all_truncated", {"length/truncated_share": 1.0}),
        ("no_advantage", {"exploration/active_groups": 0.0}),
        ("reward_not_accuracy", GAMED),
    ],
)
def test_rules_use_sampled_not_kept_rollouts(rule: str, ill: Any) -> None:
    """With dynamic sampling; the steps before have no more than any run has."""
    sampled = {f"sampled/{name}": value for name, value in (WELL | ill).items()}
    assert [alert[1:] for alert in alert_changes((20, {}), (30, sampled))] == [(rule, "fired")]
    kept = ill | {f"sampled/{name}": value for name, value in WELL.items()}
    assert alert_changes((20, {}), (30, kept)) == []


def test_a_run_reports_all_sampled_rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DAPO keeps the groups that divide; those that do not are in `sampled/` alone."""

    def first_group_divides(self: Any, inputs: Any) -> Any:
        outcomes = [place == 0 for place in range(len(inputs))]
        return [Score({"math": float(one)}, float(one), one, one) for one in outcomes]

    monkeypatch.setattr(Scorer, "grade", first_group_divides)
    given = {
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits", "rows": 4},
        "algorithm": {"type": "dapo", "mini_batches": 1, "max_resamples": 1},
        "rollout": {"group_size": 2, "max_completion_tokens": 3},
        "prompts_per_step": 2,
        "steps": 1,
    }
    report = EventFile(tmp_path)
    train(TrainConfig.model_validate(given), report, lambda: False)
    report.close()
    lines = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    (found,) = [line["values"] for line in lines if line["type"] == "metrics"]
    # Two prompts, of which one is refused: two more for the one missing, of which the first has a right rollout.
    assert found["exploration/sampled_prompts"] == 4
    assert (found["reward/answer_accuracy"], found["exploration/active_groups"]) == (0.5, 1.0)
    assert found["sampled/reward/answer_accuracy"] == found["sampled/reward/strict_accuracy"] == 2 / 8
    assert found["sampled/exploration/active_groups"] == 2 / 4


def test_steps_that_lack_a_metric_or_hold_no_number_are_passed_over() -> None:
    collapsed, nan = {"exploration/entropy": 0.01}, {"exploration/entropy": math.nan}
    assert alert_changes((20, {}), (9, collapsed), (100, nan), (1, collapsed)) == [(130, "entropy_collapse", "fired")]
    monitor = HealthMonitor(HealthSettings())
    assert [monitor.observe(step, {"loss/total": 1.0}) for step in range(1, 50)] == [[]] * 49


def test_a_resumed_run_continues_at_its_step() -> None:
    """At every step: as JSON, into a new monitor."""
    curves = [
        *[WELL] * 20,
        *[WELL | {"exploration/entropy": 0.01, "exploration/active_groups": 0.0}] * 30,
        *[WELL | GAMED] * 50,
    ]
    whole, resumed = HealthMonitor(HealthSettings()), HealthMonitor(HealthSettings())
    seen = []
    for step, metrics in enumerate(curves, start=1):
        expected = whole.observe(step, metrics)
        resumed = HealthMonitor(HealthSettings(), json.loads(json.dumps(resumed.state(), allow_nan=False)))
        assert resumed.observe(step, metrics) == expected
        seen += [(alert.rule, alert.state) for alert in expected]
    assert seen == [
        ("entropy_collapse", "fired"),
        ("no_advantage", "fired"),
        ("entropy_collapse", "cleared"),
        ("no_advantage", "cleared"),
        ("reward_not_accuracy", "fired"),
    ]


def test_only_the_rules_that_were_named_end_a_run() -> None:
    ending = HealthMonitor(HealthSettings(pause_on=("all_truncated",)))
    advising = HealthMonitor(HealthSettings(pause_on=("entropy_collapse",)))
    truncated = WELL | {"length/truncated_share": 1.0}
    ends = [step for step in range(1, 11) if ending.pausing(ending.observe(step, truncated))]
    assert ends == [5]
    assert not any(advising.pausing(advising.observe(step, truncated)) for step in range(1, 11))
    assert not any(ending.pausing(ending.observe(step, WELL)) for step in range(11, 31))  # clearing is no alarm


def test_a_verifier_without_verdicts_pauses_in_any_case() -> None:
    monitor, share = HealthMonitor(HealthSettings()), "reward/verifier_failure_share"

    def observe(step: int, value: float) -> Any:
        alerts = monitor.observe(step, WELL | {share: value})
        return [(one.rule, one.state) for one in alerts], monitor.pausing(alerts) is not None

    assert observe(1, 0.0) == ([], False)
    assert observe(2, 0.18) == ([], False)  # mean 0.09, limit 0.1
    assert observe(3, 1.0) == ([("verifier_failures", "fired")], False)  # mean 0.59
    assert observe(4, 1.0) == ([("no_verdicts", "fired")], True)
    assert observe(5, 1.0) == ([], False)
    monitor = HealthMonitor(HealthSettings(), json.loads(json.dumps(monitor.state())))  # resumed, not fixed
    assert observe(6, 1.0) == ([("no_verdicts", "fired")], True)
    assert observe(7, 0.0) == ([("no_verdicts", "cleared")], False)
    assert observe(8, 0.0) == ([("verifier_failures", "cleared")], False)


@pytest.mark.parametrize("steps", [4, 2])
def test_a_run_whose_verifier_gives_no_verdict_pauses_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """At its last step too."""

    def failing(self: Any, inputs: Any) -> Any:
        failed = Score({"math": 0.0, "format": 1.0}, 1.0, False, False, "math: KeyError: 'x'", ("math",))
        return [failed for _ in inputs]

    monkeypatch.setattr(Scorer, "grade", failing)
    report = EventFile(tmp_path)
    result = train(config(steps=steps), report, lambda: False)
    report.close()
    assert (result["status"], result["reason"], result["step"]) == ("stopped", "health", 2)
    assert result["message"] == (
        "no_verdicts fired at step 2: a verifier gave no score for any completion in 2 steps in a row. "
        "Fix the verifier or remove it from rewards: the reason is in the log. math: KeyError: 'x'"
    )
    found = [(event["rule"], event["state"]) for event in of_type(tmp_path, "health")]
    assert found == [("verifier_failures", "fired"), ("no_verdicts", "fired")]
    warning = of_type(tmp_path, "log")[-1]
    assert warning["message"].endswith("math: KeyError: 'x'")


def test_settings_are_closed_and_name_real_rules() -> None:
    with pytest.raises(ValidationError, match="pause_on"):
        HealthSettings(pause_on=("nonsense",))
    assert len(HealthSettings(pause_on=tuple(rule.name for rule in RULES)).pause_on) == len(RULES) == 13


def test_a_rule_ends_a_run_with_a_checkpoint_and_a_resume_continues(tmp_path: Path) -> None:
    """A fresh model never stops by itself: every completion is truncated."""
    given = {
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits", "rows": 2},
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "rollout": {"group_size": 2, "max_completion_tokens": 3},
        "prompts_per_step": 1,
        "steps": 5,
        "health": {"pause_on": ["all_truncated"], "truncated_steps": 3, "idle_steps": 2},
    }

    def run() -> Any:
        report = EventFile(tmp_path)
        result = train(TrainConfig.model_validate(given), report, lambda: False)
        report.close()
        return result

    def alerts() -> Any:
        lines = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
        return [(line["step"], line["rule"], line["state"]) for line in lines if line["type"] == "health"]

    paused = run()
    assert (paused["status"], paused["reason"], paused["step"]) == ("stopped", "health", 3)
    assert paused["message"].startswith("all_truncated fired at step 3: over the last 3 steps 100% of completions")
    assert (tmp_path / "checkpoints" / "step-000003").is_dir()
    assert alerts() == [(2, "no_advantage", "fired"), (3, "all_truncated", "fired")]
    resumed = run()
    assert (resumed["status"], resumed["step"], resumed.get("reason")) == ("succeeded", 5, None)
    assert len(alerts()) == 2
