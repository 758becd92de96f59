"""The registry of metrics: name, unit, meaning, how to read it, and which direction is good.

Each metric and histogram that a run reports is described here: a test runs every algorithm and compares. The docs, the
dashboard, the CLI and the API take their texts from the registry. To add a metric: a `Metric` in its family's tuple.
"""

from calibrl_core.metrics.accuracy import EVALUATION, VALIDATION
from calibrl_core.metrics.base import Direction, Metric, MetricFamily, find
from calibrl_core.metrics.expert import EXPERT
from calibrl_core.metrics.image import IMAGE
from calibrl_core.metrics.installed import installed_descriptions
from calibrl_core.metrics.sampling import EXPLORATION, LENGTH, RARENESS, REWARD, SAMPLED, VERDICT
from calibrl_core.metrics.update import ALGORITHM, LOSS, PERF, RATIO, SCHEDULE

__all__ = ["FAMILIES", "HISTOGRAMS", "Direction", "Metric", "MetricFamily", "describe", "find", "look_up"]

FAMILIES = (
    REWARD,
    VERDICT,
    EXPLORATION,
    SAMPLED,
    RARENESS,
    EXPERT,
    IMAGE,
    LOSS,
    SCHEDULE,
    ALGORITHM,
    RATIO,
    LENGTH,
    PERF,
    VALIDATION,
    EVALUATION,
)

# Distributions over a step's values. The bins stay the same during a run; outliers count in the end bins.
HISTOGRAMS = (
    Metric("rareness", "reward", "Rareness weight |A| of every rollout."),
    Metric("rareness/correct", "reward", "Rareness weight |A| of every correct rollout."),
    Metric("rareness/wrong", "reward", "Rareness weight |A| of every wrong rollout."),
    Metric("expert/gap", "nats", "Gap of every token that has one."),
    Metric("expert/gap_correct", "nats", "Gap of every token of a correct rollout."),
    Metric("expert/gap_wrong", "nats", "Gap of every token of a wrong rollout."),
    Metric("exploration/entropy", "nats", "Entropy of every rollout token."),
)


def describe(name: str) -> Metric:
    """Return the description of a reported metric.

    Raises:
        KeyError: The registry has no such metric.
    """
    metric = find(name, FAMILIES)
    if metric is None:
        raise KeyError(f"{name!r} is not in the registry: add a Metric to a family in calibrl_core/metrics")
    return metric


def look_up(name: str) -> Metric | None:
    """Return the description of a metric from the registry, or from the package that reports it; None if neither has
    one.
    """
    return find(name, FAMILIES) or find(name, installed_descriptions())
