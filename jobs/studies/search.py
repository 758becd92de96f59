"""Points of a study in the ranges of its axes, chosen by a sampler of Optuna. Optuna stores nothing: its state is built
again from the points so far and their results each time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import fmean
from typing import TYPE_CHECKING, Any

from calibrl.schemas import StudySpec
from calibrl.schemas.studies import MAX_ARMS, AxisRange, Search
from jobs.studies.expansion import Points, groups, point_name, ranges, refused
from jobs.studies.measurements import Evaluated, Measurements, evaluated
from jobs.studies.situation import Situation

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

SEEDS_APART = 1009  # between the seeds of two arms; more than points of an arm
DIGITS = 6  # of a chosen value
MAX_DRAWS = 1000  # of a point, until it differs from all before


@dataclass(frozen=True)
class PointResult:
    """A point of an arm. `value`: its mean accuracy; None if it has not ended, or failed."""

    values: Mapping[str, float]
    value: float | None = None
    failed: bool = False

    @property
    def open(self) -> bool:
        """Return if runs of the point have not ended."""
        return self.value is None and not self.failed


def require_sampler(study: StudySpec) -> None:
    """Check that Optuna is installed if the study has ranges.

    Raises:
        Invalid: it is not.
    """
    if study.search is not None and find_spec("optuna") is None:
        raise refused("search", "the service cannot choose points: install it with pip install 'calibrl[studies]'")


def first_points(study: StudySpec) -> Points:
    """Return the points with which a study begins: as many per arm as run at the same time."""
    return _filled(study, {group.name: [] for group in groups(study)}) if study.search else {}


def kept_points(study: StudySpec, points: Points) -> Points:
    """Return the points that a changed study can keep, and as many new ones as run at the same time."""
    if study.search is None:
        return {}
    found = ranges(study)
    kept = {
        group.name: [
            point
            for point in points.get(group.name, ())[: study.search.points]
            if point.keys() == found.keys()
            and all(found[path].low <= point[path] <= found[path].high for path in point)
        ]
        for group in groups(study)
    }
    return _filled(study, {name: [PointResult(point) for point in found_points] for name, found_points in kept.items()})


def more_points(situation: Situation, points: Points, measurements: Measurements) -> Points:
    """Return the points of a study with new ones in place of those that have ended, within its budget.

    Raises:
        Conflict: the accuracies of an evaluation are not stored, or not those on the primary dataset.
    """
    study = situation.study
    if not _has_room(situation, points):
        return points
    found = evaluated(situation.expansion, situation.known)
    primary = measurements.primary(study, found)
    trials = {
        group.name: [
            _trial(situation, point_name(group.name, number), point, found, measurements, primary)
            for number, point in enumerate(points.get(group.name, ()), 1)
        ]
        for group in groups(study)
    }
    return _filled(study, trials, situation.points_in_budget)


def _has_room(situation: Situation, points: Points) -> bool:
    """Return if an arm can get one more point now."""
    search = situation.study.search
    if search is None or not situation.points_in_budget:
        return False
    for group in groups(situation.study):
        count = len(points.get(group.name, ()))
        names = [point_name(group.name, number) for number in range(1, count + 1)]
        running = sum(not _ended(situation, name) for name in names)
        if count < search.points and running < search.at_once:
            return True
    return False


def _filled(study: StudySpec, trials: Mapping[str, Sequence[PointResult]], most: int = MAX_ARMS) -> Points:
    """Return the points of all arms with at most `most` new ones."""
    search = study.search
    assert search is not None
    found: dict[str, list[dict[str, float]]] = {}
    for place, (name, so_far) in enumerate(trials.items()):
        own = list(so_far)
        while most and len(own) < search.points and sum(trial.open for trial in own) < search.at_once:
            most -= 1
            own.append(PointResult(_next(study, search, place, own)))
        found[name] = [dict(trial.values) for trial in own]
    return found


def _next(study: StudySpec, search: Search, place: int, trials: Sequence[PointResult]) -> dict[str, float]:
    """Return the next point of an arm, unlike all before. The seed depends on the place of the arm and on the number of
    its points, so that the same results lead to the same point."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = search.seed + SEEDS_APART * place + len(trials)
    chance = RandomSampler(seed=seed)
    sampler = chance if search.sampler == "random" else TPESampler(seed=seed, constant_liar=True)
    point = _asked(study, sampler, trials)
    for _ in range(MAX_DRAWS):
        if point not in [trial.values for trial in trials]:
            break
        point = _asked(study, chance, ())
    return point


def _asked(study: StudySpec, sampler: "BaseSampler", trials: Sequence[PointResult]) -> dict[str, float]:
    """Return the point that a sampler chooses after these trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampled = optuna.create_study(sampler=sampler, direction="maximize")
    spaces = {path: _distribution(axis) for path, axis in ranges(study).items()}
    for trial in trials:
        sampled.add_trial(_frozen(trial, spaces))
    chosen = sampled.ask(spaces).params
    return {path: _rounded(chosen[path], axis) for path, axis in ranges(study).items()}


def _distribution(axis: AxisRange) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution

    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _rounded(value: float, axis: AxisRange) -> float:
    if axis.whole:
        return int(value)
    return min(axis.high, max(axis.low, float(f"{value:.{DIGITS}g}")))


def _frozen(trial: PointResult, spaces: Mapping[str, Any]) -> "FrozenTrial":
    from optuna.trial import TrialState, create_trial

    state = TrialState.RUNNING if trial.open else TrialState.FAIL if trial.failed else TrialState.COMPLETE
    return create_trial(state=state, value=trial.value, params=dict(trial.values), distributions=dict(spaces))


def _trial(
    situation: Situation,
    arm: str,
    point: Mapping[str, float],
    found: Evaluated,
    measurements: Measurements,
    primary: str | None,
) -> PointResult:
    if not _ended(situation, arm):
        return PointResult(point)
    jobs = found.jobs[arm].values()
    if primary is None or len(jobs) < len(situation.study.seeds):
        return PointResult(point, failed=True)
    accuracies = [measurements.split(job, primary).values for job in jobs]
    return PointResult(point, fmean(fmean(values) for values in accuracies))


def _ended(situation: Situation, arm: str) -> bool:
    return all(situation.ended(job) for job in situation.expansion.of("evaluation", arm=arm))
