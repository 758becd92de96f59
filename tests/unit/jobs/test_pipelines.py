"""Pipelines: names of earlier jobs become ids."""

from typing import Any

import pytest

from jobs.errors import Invalid
from jobs.specs.pipelines import with_ids


def faults(*specs: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refused:
        with_ids(specs)
    return [(fault.field, fault.message) for fault in refused.value.errors]


def test_names_of_earlier_jobs_become_their_ids() -> None:
    (first, a), (second, b), (_, c) = with_ids(
        [
            {"name": "warm-up", "labels": {"from_job": "@warm-up"}},
            {"name": "train", "model": {"from_job": "@warm-up"}},
            {"name": "test", "models": [{"from_job": "@train"}, {"from_job": "x"}], "depends_on": ["@warm-up"]},
        ]
    )
    assert a == {"name": "warm-up", "labels": {"from_job": "@warm-up"}}
    assert b["model"] == {"from_job": str(first)}
    assert c["models"] == [{"from_job": str(second)}, {"from_job": "x"}] and c["depends_on"] == [str(first)]


def test_unknown_and_repeated_names_are_refused() -> None:
    later = faults({"name": "a", "model": {"from_job": "@b"}}, {"name": "b", "depends_on": ["@c"]}, {"name": "a"})
    assert [field for field, _ in later] == ["jobs.0.model.from_job", "jobs.1.depends_on.0", "jobs.2.name"]
    assert later[0][1] == "'@b' names no earlier job of the pipeline: there is no earlier job"
    assert later[1][1].endswith("earlier jobs are @a")


def test_a_name_of_another_type_and_deep_nesting_are_no_crash() -> None:
    assert with_ids([{"name": ["a"]}])[0][1] == {"name": ["a"]}
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert faults({"name": "a", "model": deep}) == [("jobs.0", "Nested too deep")]
