"""Figures of the soak test for jobs with known times."""

import pytest

from bench.queue import Span, idle_seconds, soak_rows, unfairness


def spans(*rows: tuple[str, float, float]) -> list[Span]:
    return [Span(project, claimed, ended, True) for project, claimed, ended in rows]


def test_idle_time_counts_free_slots_while_jobs_wait() -> None:
    # One slot: 0-2, 3-5, 5.5-8. Until the last claim at 5.5 it worked 4 s of 5.5, in two gaps.
    assert idle_seconds(spans(("a", 0, 2), ("a", 3, 5), ("a", 5.5, 8)), 1) == pytest.approx(1.5 / 2)


def test_slots_that_are_never_idle_have_no_idle_time() -> None:
    assert idle_seconds(spans(("a", 0, 2), ("b", 0, 2), ("a", 2, 4), ("b", 2, 4)), 2) == 0


def test_unfairness_is_the_worst_distance_from_an_equal_share_in_jobs() -> None:
    """After three jobs of 2 s, all of a, a has 6 s and b none: each is 3 s, or 1.5 jobs, from its share."""
    mine = spans(*(("a", 2 * n, 2 * n + 2) for n in range(4)), *(("b", 8 + 2 * n, 10 + 2 * n) for n in range(2)))
    assert unfairness(mine) == pytest.approx(1.5)  # at 6: a's last job was claimed then, and a has no more waiting


def test_alternating_projects_deviate_by_at_most_half_a_job() -> None:
    turns = spans(*(("ab"[n % 2], 2 * n, 2 * n + 2) for n in range(8)))
    assert unfairness(turns) == pytest.approx(0.5)


def test_a_job_that_did_not_run_exactly_once_misses_the_goal() -> None:
    rows = soak_rows([*spans(("a", 0, 2), ("b", 3, 5), ("b", 6, 8)), Span("a", 9, 11, False)], 1)
    assert (rows[0].ours, rows[0].peer, rows[0].met) == (3, 4, False)
