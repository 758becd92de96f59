"""Curves by hand for the health rules."""

from typing import Any

from calibrl_core.health import HealthMonitor
from calibrl_core.health.settings import HealthSettings

WELL = {
    "exploration/entropy": 0.5,
    "length/truncated_share": 0.05,
    "length/mean": 100.0,
    "exploration/active_groups": 0.6,
    "reward/mean": 0.5,
    "reward/std": 0.5,
    "reward/strict_accuracy": 0.45,
    "loss/grad_norm": 0.3,
    "kl/sampler": 0.001,
    "expert/nll": 0.6,
}


def alert_changes(*curves: Any, monitor: Any = None, first_step: int = 1, **settings: Any) -> Any:
    """Alerts as (step, rule, state). `curves`: (number of steps, what differs from a healthy step there)."""
    monitor = monitor or HealthMonitor(HealthSettings(**settings))
    steps = [WELL | changes for number, changes in curves for _ in range(number)]
    return [
        (alert.step, alert.rule, alert.state)
        for step, metrics in enumerate(steps, start=first_step)
        for alert in monitor.observe(step, metrics)
    ]
