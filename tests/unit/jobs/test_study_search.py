"""Points in ranges: chosen by the sampler, repeatable, within the budget, and better than chance where it can learn."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from calibrl.schemas import Reason, StudySpec
from jobs.errors import Conflict, Invalid
from jobs.studies import search
from jobs.studies.expansion import NO_POINTS, Points, expand
from jobs.studies.measurements import Measurements
from tests.support.study_jobs import STUDY, StudyJobs

pytest.importorskip("optuna")
RATE = {"low": 1e-5, "high": 1e-3, "log": True}
SEARCH = {"arms": {"a": {}}, "axes": {"optimizer.lr": RATE}, "search": {"points": 5, "at_once": 2}, "seeds": [0, 1]}


def study(**changes: Any) -> StudySpec:
    return StudySpec.model_validate(STUDY | SEARCH | changes)


def more(jobs: StudyJobs, spec: StudySpec, points: Points) -> Points:
    return search.more_points(jobs.situation(spec, points), points, Measurements(jobs.splits))


def rates(points: Points) -> list[float]:
    return [point["optimizer.lr"] for point in points["a"]]


def test_a_study_begins_with_as_many_points_as_run_at_once() -> None:
    points = search.first_points(study())
    assert len(rates(points)) == 2 and all(1e-5 <= rate <= 1e-3 for rate in rates(points))
    assert points == search.first_points(study())
    assert points != search.first_points(study(search={"points": 5, "at_once": 2, "seed": 1}))
    expansion = expand(study(), points)
    assert [arm.name for arm in expansion.arms] == ["a-point-1", "a-point-2"]
    training = next(expansion.of("training"))
    assert training.spec["optimizer"]["lr"] == rates(points)[0]


def test_a_point_follows_when_one_has_ended_until_all_have() -> None:
    spec, jobs = study(), StudyJobs()
    points = search.first_points(spec)
    progress = jobs.step(spec, points)
    assert (progress.planned, len(jobs.jobs_by_id), progress.done) == (5 * 2 * 2, 8, False)
    assert more(jobs, spec, points) == points
    while not progress.done:
        jobs.end_open()
        points = more(jobs, spec, points)
        progress = jobs.step(spec, points)
    assert (len(rates(points)), progress.succeeded, progress.planned) == (5, 20, 20)
    assert len(set(rates(points))) == 5


def test_the_same_results_lead_to_the_same_points() -> None:
    spec = study()
    found = []
    for _ in range(2):
        jobs, points = StudyJobs(), search.first_points(spec)
        for _ in range(3):
            jobs.step(spec, points)
            jobs.end_open({"a-point-1": [1.0], "a-point-2": [0.0]})
            points = more(jobs, spec, points)
        found.append(points)
    assert found[0] == found[1]


def test_a_failed_point_counts_and_is_not_measured() -> None:
    spec, jobs = study(seeds=[0]), StudyJobs()
    points = search.first_points(spec)
    jobs.step(spec, points)
    jobs.end("a-point-1 seed 0 training", reason=Reason.OUT_OF_MEMORY)
    jobs.end("a-point-1 seed 0 evaluation", reason=Reason.DEPENDENCY_FAILED)
    assert len(rates(more(jobs, spec, points))) == 3


def test_an_evaluation_without_the_primary_dataset_is_named() -> None:
    data = {"dataset": "00000000-0000-4000-8000-000000000001"}  # its name is not known before
    spec, jobs = study(seeds=[0], primary="held-out", evaluation={"data": [data]}), StudyJobs()
    points = search.first_points(spec)
    jobs.step(spec, points)
    jobs.end_open()
    with pytest.raises(Conflict, match="has no dataset 'held-out', only test"):
        more(jobs, spec, points)


def test_the_budget_limits_the_points() -> None:
    """A point costs 2 seeds x 2 jobs of an hour; the study begins with two."""
    for budget, count in ((11.9, 2), (12.0, 3), (16.0, 4)):
        spec, jobs = study(budget_slot_hours=budget), StudyJobs()
        points = search.first_points(spec)
        jobs.step(spec, points)
        jobs.end_open()
        points = more(jobs, spec, points)
        assert len(rates(points)) == count
        jobs.step(spec, points)
        jobs.end_open()
        progress = jobs.step(spec, points)
        assert (progress.done, progress.succeeded) == (True, 4 * count)
        assert progress.notes == [f"the budget of {budget:g} slot-hours allows no further points"]


def test_a_changed_study_keeps_the_points_in_its_ranges() -> None:
    points = {"a": [{"optimizer.lr": 1e-4}, {"optimizer.lr": 9e-4}], "gone": [{"optimizer.lr": 1e-4}]}
    kept = search.kept_points(study(axes={"optimizer.lr": RATE | {"high": 5e-4}}), points)
    assert (rates(kept)[0], len(rates(kept)), {*kept}) == (1e-4, 2, {"a"})
    assert 9e-4 not in rates(kept)
    other = search.kept_points(study(axes={"algorithm.negative_slope": {"low": 0, "high": 1}}), points)
    assert [{*point} for point in other["a"]] == [{"algorithm.negative_slope"}] * 2


def test_whole_numbers_are_chosen_once_each() -> None:
    spec = study(axes={"steps": {"low": 1, "high": 5, "whole": True}}, search={"points": 5, "at_once": 5})
    points = search.first_points(spec)
    assert sorted(point["steps"] for point in points["a"]) == [1, 2, 3, 4, 5]


def test_the_estimator_finds_a_maximum_that_chance_misses() -> None:
    """The measure falls with the distance from 0.5 on [0, 1]: the last ten of 30 points are nearer than chance."""
    spec = study(
        axes={"algorithm.negative_slope": {"low": 0, "high": 1}}, search={"points": 30, "at_once": 1}, seeds=[0]
    )
    trials: list[search.PointResult] = []
    for _ in range(30):
        (*_, new) = search._filled(spec, {"a": trials})["a"]
        trials.append(search.PointResult(new, 1 - abs(new["algorithm.negative_slope"] - 0.5)))
    late = [1 - trial.value for trial in trials[-10:] if trial.value is not None]
    assert sum(late) / 10 < 0.15  # of chance: 0.25


def test_axes_of_values_and_of_ranges_go_together() -> None:
    spec = study(axes={"optimizer.lr": RATE, "steps": [3, 4]}, search={"points": 2, "at_once": 2})
    names = [arm.name for arm in expand(spec, search.first_points(spec)).arms]
    assert names == [f"a-steps-{steps}-point-{number}" for steps in (3, 4) for number in (1, 2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": None}, "search: axis optimizer.lr is a range"),
        ({"axes": {"steps": [3]}}, "search: no axis is a range"),
        ({"axes": {"optimizer.lr": {"low": 1, "high": 1}}}, "low (1) must be below high (1)"),
        ({"axes": {"optimizer.lr": {"low": 0, "high": 1, "log": True}}}, "low must be above 0"),
        ({"axes": {"steps": {"low": 1.5, "high": 3, "whole": True}}}, "must be whole numbers"),
        ({"axes": {"steps": {"low": 1, "high": 3, "whole": True}}}, "the ranges have only 3 points of whole numbers"),
        ({"baseline": "a-point-1", "stop": {"after_seeds": [2]}, "seeds": [0, 1, 2]}, "are not stopped early"),
        ({"search": {"points": 20}, "arms": {"a": {}, "b": {"steps": 4}}}, "the study has 40 arms; at most 32"),
    ],
)
def test_a_faulty_search_is_refused(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises((ValidationError, Invalid)) as caught:
        expand(study(**changes), NO_POINTS)
    faults = caught.value.errors if isinstance(caught.value, Invalid) else [caught.value]
    assert message in " ".join(" ".join(str(fault).split()) for fault in faults)


def test_a_service_without_optuna_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    with pytest.raises(Invalid) as caught:
        search.require_sampler(study())
    assert "pip install 'calibrl[studies]'" in caught.value.errors[0].message
