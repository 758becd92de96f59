"""Moments in 8 bits: close to AdamW, small, and restored bit for bit. Needs torchao."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calibrl_core.config import BuiltinModel
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.models.weights import Weights
from calibrl_core.run.checkpoint import Checkpoints, TrainerState, restore_optimizer
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.settings.record import CheckpointSettings
from calibrl_core.step.adamw_8bit import plain_tensors, with_moments
from calibrl_core.step.optimizer import make_optimizer, set_learning_rate

installed = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed: calibrl[adamw-8bit]")
SETTINGS = OptimizerSettings(kind="adamw_8bit", lr=1e-3)


@pytest.fixture
def eager() -> Iterator[None]:
    """Run the optimizer as it is: compiling its kernels takes a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


def small_policy() -> Policy:
    return load_policy(BuiltinModel(builtin="tiny-vlm"))


def update(policy: Policy, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        set_learning_rate(optimizer, 1e-3 / (seed + 1))
        generator = torch.Generator().manual_seed(seed)
        for parameter in policy.trained.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@installed
@pytest.mark.usefixtures("eager")
def test_8_bit_moments_change_weights_almost_as_adamw_and_are_small() -> None:
    plain, small = small_policy(), small_policy()
    start = {name: one.detach().clone() for name, one in plain.trained.items()}
    update(plain, make_optimizer(plain, OptimizerSettings(lr=1e-3)), range(3))
    optimizer = make_optimizer(small, SETTINGS)
    update(small, optimizer, range(3))
    for name, one in plain.trained.items():
        moved = (one - start[name]).norm()
        assert (small.trained[name] - one).norm() < 0.1 * moved
    state = optimizer.state[small.trained["lm_head.weight"]]
    assert state["exp_avg"].codes.dtype == torch.uint8
    assert state["exp_avg"].scale.numel() * 256 == state["exp_avg"].numel()


@installed
@pytest.mark.usefixtures("eager")
def test_a_resumed_optimizer_is_equal_bit_for_bit(tmp_path: Path) -> None:
    policy = small_policy()
    optimizer = make_optimizer(policy, SETTINGS)
    update(policy, optimizer, range(2))
    folder = Checkpoints(tmp_path, CheckpointSettings()).save(policy, optimizer, TrainerState(step=2))
    resumed = load_policy(BuiltinModel(builtin="tiny-vlm"), checkpoint=folder)
    again = make_optimizer(resumed, SETTINGS)
    restore_optimizer(folder, again, resumed)
    for one, each in ((policy, optimizer), (resumed, again)):
        update(one, each, range(2, 4))
    for name, parameter in policy.trained.items():
        assert torch.equal(parameter, resumed.trained[name]), name


def test_hidden_packages_the_message_names_the_extra(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ModelError, match=r"optimizer.kind: adamw_8bit .*pip install 'calibrl\[adamw-8bit\]'"):
        make_optimizer(policy, SETTINGS)


class Part(Weights):
    """The weights of one of several processes: `rows` of each tensor."""

    def __init__(self, shards: int, rows: slice) -> None:
        self.shards, self._rows = shards, rows

    def local_shard(self, tensor: Tensor) -> Tensor:
        return tensor[self._rows]

    def first_row(self, parameter: Tensor) -> int:
        return int(self._rows.start)


@installed
@pytest.mark.parametrize(("shards", "rows", "small"), [(2, slice(6, 12), True), (5, slice(3, 6), False)])
def test_a_part_of_a_moment_is_that_of_the_whole(shards: int, rows: slice, small: bool) -> None:
    """Saved by one process, restored by one of two, whose parts are equal; and of five, whose parts differ."""
    from torchao.optim.subclass_8bit import OptimState8bit

    parameter = torch.zeros(12, 1024)
    for kind, signed in (("exp_avg", True), ("exp_avg_sq", False)):
        whole = OptimState8bit.zeros(parameter.shape, signed, dtype=torch.float32)
        whole.copy_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0)) - 0.5 * signed)
        plain = plain_tensors({kind: whole}, parameter, Weights())
        found: Any = with_moments(plain, parameter, Part(shards, rows))[kind]
        assert hasattr(found, "codes") == small
        assert torch.equal(found.dequantize() if small else found, whole.dequantize()[rows])
