"""Orders that follow from a job's limits, at times set by hand."""

from typing import Any

import pytest

from calibrl.schemas import GpuReading, Limits, Reason
from worker.limits import LimitExceeded, LimitWarning, LimitWatch

START = 1000.0


def watch(ran_before: float = 0.0, **limits: Any) -> LimitWatch:
    return LimitWatch(Limits(**limits), START, ran_before)


def cards(*utilisation: float) -> list[GpuReading]:
    return [
        GpuReading(index=index, name="a card", uuid="GPU", memory_total=100, memory_used=50, utilisation=one)
        for index, one in enumerate(utilisation)
    ]


def test_without_limits_no_warning_appears() -> None:
    free = watch()
    assert [free.check(START + 1e7 * n, None, cards(0, 0)) for n in range(5)] == [None] * 5


@pytest.mark.parametrize(("ran_before", "left"), [(0.0, 60.0), (45.0, 15.0)])
def test_a_job_is_timed_out_by_all_its_attempts_together(ran_before: float, left: float) -> None:
    found = watch(ran_before, timeout_seconds=60)
    assert found.check(START + left - 0.1, 5, []) is None
    message = "the job ran for 60 s; its maximum is 60 s (limits.timeout_seconds, or max_run_hours of its project)"
    assert found.check(START + left, 6, []) == LimitExceeded(Reason.TIMED_OUT, message)


def test_an_attempt_that_begins_past_the_timeout_ends_at_once() -> None:
    end = watch(61, timeout_seconds=60).check(START, None, [])
    assert isinstance(end, LimitExceeded) and end.message.startswith("the job ran for 61 s; its maximum is 60 s (")


def test_only_a_new_step_is_progress() -> None:
    found = watch(no_progress_seconds=10)
    assert found.check(START + 9, 20, []) is None  # it went on from step 20
    assert found.check(START + 18, 21, []) is None
    assert found.check(START + 27.9, 21, []) is None
    assert found.check(START + 28, 20, []) == LimitExceeded(
        Reason.NO_PROGRESS, "no new step for 10 s (last step: 21); limits.no_progress_seconds is 10"
    )


def test_a_missing_first_step_is_no_progress_either() -> None:
    found = watch(no_progress_seconds=10)
    assert found.check(START + 9.9, None, []) is None
    end = found.check(START + 10, None, [])
    assert isinstance(end, LimitExceeded) and end.message.startswith("no new step for 10 s (no step so far)")


def idle(*means: float, seconds: float = 100) -> list[LimitWarning | LimitExceeded | None]:
    """Return the result of each window: two readings of two GPUs with this mean, and one more at the window's end."""
    found = watch(min_gpu_utilisation=20, gpu_idle_seconds=seconds)
    verdicts = []
    for number, mean in enumerate(means):
        begin = START + number * seconds
        assert found.check(begin + 1, number, cards(0, 2 * mean)) is None
        assert found.check(begin + seconds - 1, number, cards(2 * mean, 0)) is None
        verdicts.append(found.check(begin + seconds, number, cards(mean, mean)))
    return verdicts


def test_idle_gpus_are_warned_of_and_in_the_next_window_end_the_job() -> None:
    busy, warned, ended = idle(20, 19.9, 3)
    assert busy is None
    text = "mean GPU utilisation was 19.9 % over 100 s; limits.min_gpu_utilisation is 20 %"
    assert warned == LimitWarning(f"{text}; if this continues, the job is ended")
    assert ended == LimitExceeded(
        Reason.IDLE_GPU, "mean GPU utilisation was 3.0 % over 100 s; limits.min_gpu_utilisation is 20 %"
    )


def test_a_busy_window_resets_the_warning_of_an_idle_one() -> None:
    assert [type(one) for one in idle(5, 50, 5, 5)] == [LimitWarning, type(None), LimitWarning, LimitExceeded]


def test_a_window_without_readings_gives_no_warning() -> None:
    found = watch(min_gpu_utilisation=20, gpu_idle_seconds=100)
    assert isinstance(found.check(START + 100, 1, cards(0)), LimitWarning)
    assert found.check(START + 200, 1, []) is None
    assert isinstance(found.check(START + 300, 1, cards(0)), LimitWarning)


def test_the_run_ends_before_a_warning() -> None:
    found = watch(min_gpu_utilisation=20, gpu_idle_seconds=100, timeout_seconds=100, no_progress_seconds=100)
    end = found.check(START + 100, None, cards(0))
    assert isinstance(end, LimitExceeded) and end.reason is Reason.TIMED_OUT
