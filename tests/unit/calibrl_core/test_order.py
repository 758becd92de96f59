"""Order of the data: epochs, steps that span two of them, more prompts for a step, and the place in a checkpoint."""

import json

import pytest

from calibrl_core.data.order import DataOrder
from calibrl_core.data.schema import Example

TEN = [Example(id=str(number), question="q", answer="1") for number in range(10)]


def numbers(examples: list[Example]) -> list[int]:
    return [int(example.id) for example in examples]


def test_an_epoch_takes_each_example_once_in_an_order_of_its_own() -> None:
    order = DataOrder(TEN, seed=3, per_step=4)
    steps = [numbers(order.next_step()) for _ in range(5)]
    flat = [index for step in steps for index in step]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert numbers(DataOrder(TEN, seed=3, per_step=4).next_step()) == steps[0]
    assert numbers(DataOrder(TEN, seed=4, per_step=4).next_step()) != steps[0]


def test_passes_over_the_data_are_counted_without_waiting_examples() -> None:
    order = DataOrder(TEN, seed=3, per_step=8)
    passes = []
    for _ in range(3):
        order.next_step()
        passes.append(order.epochs)
    assert passes == pytest.approx([0.8, 1.6, 2.4])
    assert DataOrder(TEN, seed=3, per_step=8, state=order.state()).epochs == pytest.approx(2.4)


@pytest.mark.parametrize("seed", range(20))
def test_a_step_over_the_end_of_an_epoch_repeats_no_example(seed: int) -> None:
    order = DataOrder(TEN, seed, per_step=8)
    steps = [numbers(order.next_step()) for _ in range(5)]
    assert [len(set(step)) for step in steps] == [8] * 5
    assert sorted(index for step in steps for index in step) == sorted([*range(10)] * 4)


def test_without_shuffling_a_taken_example_waits_for_the_next_step() -> None:
    order = DataOrder(TEN[:3], seed=0, per_step=2, shuffle=False)
    assert [numbers(order.next_step()) for _ in range(3)] == [[0, 1], [2, 0], [1, 2]]
    order = DataOrder(TEN[:3], seed=0, per_step=2, shuffle=False)
    assert numbers(order.next_step()) == [0, 1]
    assert numbers(order.more_examples(5)) == [2]  # the data has no other
    assert order.more_examples(1) == []
    order = DataOrder(TEN[:4], seed=0, per_step=3, shuffle=False)
    assert [numbers(order.next_step()) for _ in range(4)] == [[0, 1, 2], [3, 0, 1], [2, 3, 0], [1, 2, 3]]
    assert numbers(order.more_examples(1)) == [0]


def test_more_examples_are_the_next_of_the_epoch() -> None:
    order = DataOrder(TEN, seed=0, per_step=2, shuffle=False)
    assert numbers(order.next_step()) == [0, 1]
    assert numbers(order.more_examples(3)) == [2, 3, 4]
    assert numbers(order.next_step()) == [5, 6]
    assert numbers(order.more_examples(7)) == [7, 8, 9, 0, 1, 2, 3]
    assert numbers(order.more_examples(2)) == [4]  # 5 and 6 are the step's own: they wait
    assert numbers(order.next_step()) == [5, 6]
    assert numbers(order.next_step()) == [7, 8]


def test_a_step_of_more_examples_than_the_data_has_repeats_them_evenly() -> None:
    order = DataOrder(TEN[:3], seed=0, per_step=7)
    step = numbers(order.next_step())
    assert sorted(step[:3]) == sorted(step[3:6]) == [0, 1, 2]
    assert order.more_examples(1) == []


def test_an_order_continues_from_its_state() -> None:
    whole = DataOrder(TEN, seed=5, per_step=4)
    order = DataOrder(TEN, seed=5, per_step=4)
    for step in range(12):
        assert order.next_step() == whole.next_step()
        assert order.more_examples(step % 5) == whole.more_examples(step % 5)
        state = json.loads(json.dumps(order.state()))
        order = DataOrder(TEN, seed=5, per_step=4, state=state)


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_upcoming_examples_are_those_of_the_next_step(shuffle: bool) -> None:
    """Over the ends of epochs, and after extra examples, which change them."""
    order = DataOrder(TEN[:5], seed=1, per_step=2, shuffle=shuffle)
    for step in range(12):
        expected = order.upcoming()
        assert order.next_step() == expected
        order.more_examples(step % 2)
