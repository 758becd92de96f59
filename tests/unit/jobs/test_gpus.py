"""The choice of GPUs on a machine."""

from jobs.scheduling.gpus import choose_gpus


def test_a_job_gets_the_lowest_free_gpus_or_none() -> None:
    assert choose_gpus([3, 0, 2], 2) == (0, 2)
    assert choose_gpus([3, 0, 2], 3) == (0, 2, 3)
    assert choose_gpus([3, 0, 2], 4) is None
