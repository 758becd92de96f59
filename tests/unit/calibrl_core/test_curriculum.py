"""Easy rows first, by a column or as measured; and the length of a run in epochs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from calibrl_core import data
from calibrl_core.config import TrainConfig
from calibrl_core.data.order import DataOrder
from calibrl_core.data.schema import DataError, Example, FileData
from calibrl_core.report import EventFile
from calibrl_core.train import train
from tests.support.training import config, of_type

RATIOS = [0.5, 1.0, 0.0, 0.5, 0.25]
ROWS = [Example(id=str(number), question="q", answer="1", pass_ratio=ratio) for number, ratio in enumerate(RATIOS)]


def numbers(examples: list[Example]) -> list[int]:
    return [int(example.id) for example in examples]


def settings(**changes: Any) -> TrainConfig:
    return cast(TrainConfig, config(**{"steps": None} | changes))


def test_easy_rows_come_first_and_equal_ones_keep_their_order() -> None:
    order = DataOrder(ROWS, seed=0, per_step=5, shuffle=False, curriculum="pass_ratio")
    assert numbers(order.next_step()) == [1, 0, 3, 4, 2]


def test_equally_easy_rows_are_shuffled_in_each_epoch() -> None:
    rows = [replace(row, pass_ratio=float(int(row.id) < 3)) for row in ROWS]
    order = DataOrder(rows, seed=0, per_step=5, curriculum="pass_ratio")
    epochs = [numbers(order.next_step()) for _ in range(8)]
    assert all(set(epoch[:3]) == {0, 1, 2} for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 2


def test_a_row_without_a_ratio_is_refused() -> None:
    rows = [*ROWS, replace(ROWS[0], id="file.jsonl:6", pass_ratio=None)]
    with pytest.raises(DataError, match=r"data: 1 rows have no pass_ratio, such as file.jsonl:6; .*another curriculum"):
        DataOrder(rows, seed=0, per_step=2, curriculum="pass_ratio")


def test_measured_ratios_sort_the_next_epoch_not_the_current_one() -> None:
    order = DataOrder(ROWS, seed=0, per_step=2, shuffle=False, curriculum="measured")
    assert numbers(order.next_step()) == [0, 1]
    order.observe({"0": 0.0, "1": 0.25})
    assert numbers(order.next_step()) == [2, 3]
    order.observe({"2": 0.75, "3": 1.0})
    # Row 4 ends the first epoch and has no measured ratio when the second begins, so it counts as 0.5.
    assert numbers(order.next_step()) == [4, 3]
    order.observe({"4": 1.0, "3": 0.0})
    assert numbers(order.next_step()) == [2, 4]
    assert numbers(order.next_step()) == [1, 0]


@pytest.mark.parametrize("curriculum", ["pass_ratio", "measured"])
def test_an_order_by_ease_continues_from_its_state(curriculum: Any) -> None:
    whole = DataOrder(ROWS, seed=5, per_step=2, curriculum=curriculum)
    order = DataOrder(ROWS, seed=5, per_step=2, curriculum=curriculum)
    for step in range(12):
        expected = whole.next_step()
        assert order.next_step() == expected
        measured = {example.id: (7 * step + 3 * place) % 5 / 4 for place, example in enumerate(expected)}
        whole.observe(measured)
        order.observe(measured)
        state = json.loads(json.dumps(order.state()))
        order = DataOrder(ROWS, seed=5, per_step=2, curriculum=curriculum, state=state)


def test_the_plain_form_has_a_pass_ratio(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"question": "q", "answer": 1, "pass_ratio": 0.5}\n{"question": "q", "answer": 1}\n')
    assert [row.pass_ratio for row in data.load(FileData(path=str(file)))] == [0.5, None]
    file.write_text('{"question": "q", "answer": 1, "pass_ratio": 50}\n')
    with pytest.raises(DataError, match="column 'pass_ratio' must be empty or a number up to 1"):
        data.load(FileData(path=str(file)))


@pytest.mark.parametrize(("epochs", "rows", "steps"), [(1, 6, 3), (1, 7, 4), (0.1, 60, 3), (2.5, 4, 5), (0.001, 6, 1)])
def test_epochs_are_counted_in_steps_and_rounded_up(epochs: float, rows: int, steps: int) -> None:
    assert settings(epochs=epochs, prompts_per_step=2).step_count(rows) == steps


def test_steps_or_epochs_not_both_or_none() -> None:
    assert settings(steps=3).step_count(1000) == 3
    with pytest.raises(ValidationError, match="steps: set steps or epochs"):
        settings()
    with pytest.raises(ValidationError, match="steps: set only one of steps and epochs"):
        settings(steps=1, epochs=1)
    with pytest.raises(ValidationError, match="curriculum: sft samples no completions"):
        settings(steps=1, algorithm={"type": "sft"}, curriculum="measured")


@pytest.mark.slow
@pytest.mark.usefixtures("rewarding")
def test_a_run_of_one_and_a_half_epochs_resumes_its_measured_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 rows, 1 per step: 3 steps."""
    taken: list[str] = []
    plain = DataOrder.next_step

    def recorded(self: DataOrder) -> list[Example]:
        examples = plain(self)
        taken.extend(example.id for example in examples)
        return examples

    monkeypatch.setattr(DataOrder, "next_step", recorded)
    monkeypatch.setattr(DataOrder, "upcoming", lambda self: [])
    rows = {"builtin": "digits", "rows": 2}
    algorithm = {"type": "grpo", "mini_batches": 1}

    def run(folder: Path, **changes: Any) -> list[str]:
        taken.clear()
        report = EventFile(folder)
        given = {
            "data": rows,
            "prompts_per_step": 1,
            "samples": {"groups": 0},
            "curriculum": "measured",
            "algorithm": algorithm,
        } | changes
        train(settings(**given), report, lambda: False)
        report.close()
        return list(taken)

    whole = run(tmp_path / "whole", epochs=1.5)
    assert [event["steps_total"] for event in of_type(tmp_path / "whole", "start")] == [3]
    assert len(whole) == 3 and len(set(whole[:2])) == 2
    assert run(tmp_path / "parts", steps=2) + run(tmp_path / "parts", epochs=1.5) == whole
