"""Mixtures: rows of several sources per epoch by weight, in a deterministic order that a resumed run continues."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from api.validation_errors import field_errors
from calibrl.schemas import DataFacts, TrainSpec, job_spec_adapter
from calibrl_core.config import EvaluateConfig, TrainConfig
from calibrl_core.data.mixture import Mixture
from calibrl_core.data.order import DataOrder
from calibrl_core.data.row_cache import RowCache
from calibrl_core.data.schema import DataError, DataSource, Example, FileData, weighted_rows
from calibrl_core.data.views import repeats_of
from calibrl_core.report import EventFile
from calibrl_core.run.identity import data_digest
from calibrl_core.run.sources import read_sources
from calibrl_core.train import train
from jobs.planning.advice import together
from jobs.specs.references import References
from jobs.specs.trainer_config import trainer_config
from tests.support.training import config

TRAIN = {"kind": "train", "name": "x", "model": {"builtin": "tiny-vlm"}, "algorithm": {"type": "grpo"}, "steps": 10}


def source(name: str, weight: float) -> FileData:
    return FileData(path=f"/{name}/train.jsonl", weight=weight)


def rows(name: str, count: int) -> list[Example]:
    return [Example(id=f"train/{number}", question=f"{name}{number}", answer="1") for number in range(count)]


def mixed(*weights: float, count: int = 4, seed: int = 0) -> Mixture:
    names = "abc"[: len(weights)]
    sources = [source(name, weight) for name, weight in zip(names, weights, strict=True)]
    return Mixture(sources, [rows(name, count) for name in names], seed, asks=False)


def repeats(examples: Mixture, name: str) -> list[int]:
    pairs = zip(examples, examples.repeats.tolist(), strict=True)
    return [count for example, count in pairs if example.question.startswith(name)]


def test_a_weight_is_the_number_of_occurrences_per_epoch() -> None:
    found = mixed(1, 2, 0.5)
    assert repeats(found, "a") == [1, 1, 1, 1] and repeats(found, "b") == [2, 2, 2, 2] and repeats(found, "c") == [1, 1]
    assert sorted(repeats(mixed(2.75), "a")) == [2, 3, 3, 3]
    assert [weighted_rows(4, weight) for weight in (1, 2, 0.5, 2.75, 0.1)] == [4, 8, 2, 11, 0]


def test_the_seed_chooses_the_rows_of_a_fraction() -> None:
    def chosen(seed: int) -> list[str]:
        return [example.question for example in mixed(0.25, count=40, seed=seed)]

    assert chosen(0) == chosen(0) != chosen(1)
    assert len(chosen(0)) == 10 and chosen(0) == sorted(chosen(0), key=lambda text: int(text[1:]))


def test_all_ids_differ_although_the_files_have_one_name() -> None:
    found = mixed(1, 1, count=2)
    assert [example.id for example in found] == ["train/0", "train/1", "train/0@1", "train/1@1"]
    assert [found[place] for place in range(4)] == list(found) and found[-1].id == "train/1@1"
    assert repeats_of(mixed(1, 2, count=2)[1:3]).tolist() == [1, 2]


def test_a_weight_that_leaves_no_row_is_refused() -> None:
    with pytest.raises(DataError, match=r"weight 0\.1 leaves none of the 4 rows of train: raise it"):
        mixed(1, 0.1)


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_has_each_row_as_often_as_its_weight_says(shuffle: bool) -> None:
    examples = mixed(1, 2.5)
    total = int(examples.repeats.sum())
    assert total == 4 + 10
    order = DataOrder(examples, 3, 2, shuffle=shuffle)
    seen = Counter(example.id for _ in range(3 * total // 2) for example in order.next_step())
    expected = zip(examples, examples.repeats, strict=True)
    assert seen == {example.id: 3 * count for example, count in expected}


def test_no_step_has_a_row_twice_and_a_resume_continues_the_order() -> None:
    examples = mixed(3, 0.5, count=6)
    order = DataOrder(examples, 1, 5)
    steps = []
    for number in range(12):
        if number == 7:
            state = json.loads(json.dumps(order.state()))
        steps.append([example.id for example in order.next_step()])
    assert all(len(set(step)) == 5 for step in steps)
    resumed = DataOrder(mixed(3, 0.5, count=6), 1, 5, state=state)
    assert [[example.id for example in resumed.next_step()] for _ in range(5)] == steps[7:]


def test_the_order_without_weights_is_that_of_earlier_versions() -> None:
    order = DataOrder(rows("a", 6), 5, 6)
    expected = np.random.default_rng([5, 0]).permutation(6)
    assert [example.id for example in order.next_step()] == [f"train/{number}" for number in expected]


def test_the_digest_of_the_data_has_the_weights() -> None:
    assert data_digest(mixed(1, 1)) != data_digest(mixed(1, 2))
    assert data_digest(mixed(1)) == data_digest(rows("a", 4))


def test_sources_are_read_reported_and_mixed(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Three."}], "note": "n"}
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "q", "answer": "1"}) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps(chat) + "\n")
    sources = [FileData(path=str(tmp_path / "a.jsonl"), weight=2), FileData(path=str(tmp_path / "b.jsonl"))]
    logged: list[tuple[str, str]] = []

    checked: list[str] = []

    def usable(place: int, source: DataSource, rows: Sequence[Example]) -> Sequence[Example]:
        checked.append(f"{place} {source.name} {len(rows)}")
        return rows

    def read(asks: bool) -> Sequence[Example]:
        return read_sources(
            "data",
            sources,
            0,
            RowCache(tmp_path / "cache", 10**9),
            lambda *line: logged.append(line),
            usable,
            asks=asks,
            answers=True,
        )

    found = read(asks=True)
    assert repeats_of(found).tolist() == [2, 1] and found[1].asks_for_answer
    assert not read(asks=False)[1].asks_for_answer
    assert checked == ["0 a 1", "1 b 1"] * 2
    assert logged[:2] == [
        ("info", "data: a: 1 rows in the plain format, 0 with expert, 0 with images; unused columns: none"),
        ("info", "data: b: 1 rows in OpenAI's chat format, 1 with expert, 0 with images; unused columns: note"),
    ]


def spec(data: Any, **changes: Any) -> TrainSpec:
    parsed = job_spec_adapter.validate_python({**TRAIN, "data": data, **changes})
    assert isinstance(parsed, TrainSpec)
    return parsed


def test_a_spec_takes_one_source_or_a_list() -> None:
    several = spec([{"path": "/a.jsonl", "weight": 2.0}, {"builtin": "digits"}, {"dataset": str(uuid4())}])
    assert [one.field for one in References.of(several).data] == ["data.0", "data.1", "data.2"]
    assert [one.field for one in References.of(spec({"path": "/a.jsonl"})).data] == ["data"]
    assert TrainSpec.model_validate(several.model_dump(mode="json")) == several

    def known(choice: Any) -> FileData:
        return FileData(path="/known.jsonl", weight=choice.weight)

    stored = several.model_dump(mode="json")
    stored["data"] = stored["data"][1:]
    made = TrainConfig.model_validate(trainer_config(stored, lambda model: Path(), known, lambda model: Path()))
    assert [one.weight for one in made.sources] == [1, 1] and len(made.sources) == 2


def test_an_error_names_the_item_of_the_list() -> None:
    with pytest.raises(ValidationError) as caught:
        spec([{"path": "/a.jsonl"}, {"path": "/b.jsonl", "weight": 0}])
    body = {**TRAIN, "data": [{"path": "/a.jsonl"}, {"path": "/b.jsonl", "weight": 0}]}
    faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in caught.value.errors()]
    assert [error.field for error in field_errors(faults, body)] == ["data.1.weight"]


@pytest.mark.parametrize("data", [[], {"path": "/a.jsonl", "weight": 101}])
def test_bad_lists_and_weights_are_refused(data: Any) -> None:
    with pytest.raises(ValidationError):
        spec(data)


def test_validation_and_evaluation_have_no_weights() -> None:
    with pytest.raises(ValidationError, match=r"validation\.data\.weight: only training data has weights"):
        spec({"builtin": "digits"}, validation={"data": {"builtin": "digits", "weight": 2}})
    evaluation = {"models": [{"builtin": "tiny-vlm"}], "data": [{"builtin": "digits", "weight": 2}]}
    with pytest.raises(ValidationError, match=r"data\.0\.weight: only training data has weights"):
        TypeAdapter(EvaluateConfig).validate_python(evaluation)


def test_a_plan_counts_the_rows_of_an_epoch() -> None:
    facts = [
        DataFacts(field=f"data.{number}", name="x", rows=rows, checked=rows, with_expert=1, with_images=0)
        for number, rows in enumerate((10, 4))
    ]
    both = together(spec([{"path": "/a.jsonl", "weight": 2.5}, {"path": "/b.jsonl"}]), facts)
    assert (both.rows, both.checked, both.with_expert, both.field) == (29, 14, 2, "data")


def test_a_run_takes_an_epoch_of_a_mixture(tmp_path: Path) -> None:
    digits = [{"builtin": "digits", "rows": 4, "weight": 1.5}, {"builtin": "geometry", "rows": 2}]
    report = EventFile(tmp_path)
    settings = {"algorithm": {"type": "sft"}, "rollout": {"max_completion_tokens": 64}, "steps": None, "epochs": 1}
    result = train(config(**settings, data=digits), report, lambda: False)
    report.close()
    assert (result["status"], result["step"]) == ("succeeded", 4)  # 6 + 2 rows, 2 per step
