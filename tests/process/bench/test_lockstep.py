"""Loops that take turns, and the reward that both arms share. Without torch, so that the processes start at once."""

import os

import pytest

from bench.lockstep import Arm, Gate, Orders
from bench.rewards import reward


def count(gate: Gate) -> None:
    """Count the turns of each kind in a loop that does nothing else."""
    turns = 0
    while orders := gate.next():
        turns += 1
        gate.done(turns * (-1 if orders.equal_rewards else 1))


def fail(gate: Gate) -> None:
    gate.next()
    os._exit(3)


def test_a_loop_takes_a_step_on_command() -> None:
    arm = Arm("count", count, os.sched_getaffinity(0))
    taken = [arm.step(Orders(equal)).tokens for equal in (False, False, True)]
    arm.close()
    assert taken == [1, 2, -3]


def test_a_dead_loop_is_reported_by_name() -> None:
    arm = Arm("fail", fail, os.sched_getaffinity(0))
    with pytest.raises(RuntimeError, match="the arm fail ended early"):
        arm.step(Orders())
    arm.close()


def test_rewards_differ_within_a_group_and_are_reproducible() -> None:
    texts = ["one", "two", "three"]
    values = [reward(text, 0, equal=False) for text in texts]
    assert len(set(values)) == 3
    assert all(0 <= value < 1 for value in values)
    assert values == [reward(text, 1, equal=True) for text in texts]  # only each second group is levelled
    assert {reward(text, 2, equal=True) for text in texts} == {0.0}
