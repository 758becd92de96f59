"""Validation curves of runs over rollouts and over time, their values at equal budgets, and means of metrics."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from calibrl.schemas.specs import find_algorithm
from calibrl.schemas.study_reports import Budget, StudyPoint

ACCURACY, STEP_SECONDS, SAMPLED_PROMPTS = "validation/accuracy", "perf/step_seconds", "exploration/sampled_prompts"
METRICS = [ACCURACY, STEP_SECONDS, SAMPLED_PROMPTS]
LAST_PART = 0.75  # of the steps; means of metrics begin after it


def curve(rows: Iterable[tuple[int, Mapping[str, float | str]]], spec: Mapping[str, Any]) -> list[StudyPoint]:
    """Return the validations in metrics by ascending step. A step samples `prompts_per_step` groups, or as many as it
    reports.
    """
    algorithm = find_algorithm(str(spec.get("algorithm", {}).get("type")))
    samples = algorithm is None or algorithm.samples
    prompts = float(spec["prompts_per_step"]) if samples else 0.0
    group_size = float(spec.get("rollout", {}).get("group_size", 0))
    rollouts = seconds = 0.0
    points = []
    for step, values in rows:
        if step > 0:
            rollouts += float(values.get(SAMPLED_PROMPTS, prompts)) * group_size
            seconds += float(values.get(STEP_SECONDS, 0.0))
        if math.isfinite(accuracy := float(values.get(ACCURACY, math.nan))):
            points.append(StudyPoint(step=step, rollouts=rollouts, seconds=seconds, accuracy=accuracy))
    return points


def thinned(points: list[StudyPoint], most: int) -> list[StudyPoint]:
    """Return at most so many points at even distances, with the first and the last; `most` is at least 2."""
    if len(points) <= most:
        return points
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def last_means(rows: Sequence[tuple[int, Mapping[str, float | str]]], names: Iterable[str]) -> dict[str, float]:
    """Return the mean of each metric over the last quarter of the steps; metrics without a finite value there are
    left out.
    """
    last = rows[-1][0] if rows else 0
    late = [values for step, values in rows if step > LAST_PART * last]
    found = {name: [float(values[name]) for values in late if name in values] for name in names}
    finite = {name: [value for value in values if math.isfinite(value)] for name, values in found.items()}
    return {name: sum(values) / len(values) for name, values in finite.items() if values}


def common_budget(curves: Iterable[list[StudyPoint]], budget: Budget) -> float | None:
    """Return the largest amount that all curves reach; None if a curve is empty, or no run used anything."""
    ends = [max((point.used(budget) for point in points), default=0.0) for points in curves]
    return min(ends) if ends and min(ends) > 0 else None


def accuracy_at(points: list[StudyPoint], budget: Budget, limit: float) -> float | None:
    """Return the accuracy of the last validation within a budget; None if there was none."""
    within = [point.accuracy for point in points if point.used(budget) <= limit]
    return within[-1] if within else None
