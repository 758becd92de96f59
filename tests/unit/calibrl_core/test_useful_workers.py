"""How many worker processes prepare images if no setting says it."""

import dataclasses
from typing import Any

import pytest

from calibrl_core.data.schema import Example
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.encoding_workers import useful_workers
from calibrl_core.models.policy import Policy
from tests.support.pictures import png


@pytest.mark.parametrize(
    ("prompts", "processes", "expected"),
    [
        (11, 1, 0),  # 11 million pixels
        (12, 1, 4),  # of 8 CPUs, one for the trainer: 7, at most 4
        (12, 2, 3),  # 4 CPUs for each process
        (12, 8, 1),
    ],
)
def test_large_images_get_as_many_workers_as_there_are_cpus_for(
    policy: Policy, examples: list[Example], prompts: int, processes: int, expected: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8))
    large = dataclasses.replace(examples[0], images=(png(size=1000),) * 2)
    mixed = [large, dataclasses.replace(large, images=())]  # a mean of one image of a million pixels
    encoder = PromptEncoder(policy.processor, None)
    assert useful_workers(encoder, mixed, prompts, processes) == expected
    encoder.processor = lambda: None  # cannot be pickled
    assert useful_workers(encoder, mixed, prompts, processes) == 0


def test_small_images_and_texts_get_no_workers(policy: Policy, examples: list[Example]) -> None:
    assert useful_workers(PromptEncoder(policy.processor, None), examples, 480, 1) == 0
