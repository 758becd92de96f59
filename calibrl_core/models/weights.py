"""Where a policy's weights are. `calibrl_core.models.sharded_weights` has the other answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn

from calibrl_core.distributed.ranks import Ranks

T = TypeVar("T")


class Weights:
    """All in this process."""

    sharded = False

    def run(self, function: Callable[[], T]) -> T:
        """`function()`, a forward pass with whatever weights it needs. With gradient it returns tensors, or tuples of
        them."""
        return function()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """All weights are in this process for as long: passes without gradient need not keep step with the others'."""
        yield

    def sum_gradients(self, parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
        """Give each parameter the sum of its gradients over the processes; none where no process has one."""
        ranks.sum_gradients(parameters)

    def own(self, tensor: Tensor) -> Tensor:
        """What this process keeps of a parameter or its gradient."""
        return tensor

    def total(self, values: Sequence[float], ranks: Ranks) -> list[float]:
        """Sums over what each process keeps, made sums over the whole."""
        return list(values)

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """Every tensor of `model`, whole, by name."""
        return model.state_dict()

    def whole(self, tensor: Tensor) -> Tensor:
        """A parameter, or what the optimizer keeps of one, whole."""
        return tensor

    def part(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Of a whole tensor of the shape of `parameter`, what this process keeps."""
        return tensor
