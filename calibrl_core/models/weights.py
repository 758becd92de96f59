"""Access to a policy's weights. `Weights`: all in this process. `calibrl_core.models.sharded_weights`: one shard per
process (FSDP2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn

from calibrl_core.distributed.ranks import Ranks

T = TypeVar("T")


class Weights:
    """Weights that this process holds in full."""

    sharded = False

    def run(self, function: Callable[[], T]) -> T:
        """Return `function()`, a forward pass, with the weights that it needs. If it needs a gradient it must return
        tensors or tuples of tensors.
        """
        return function()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold all weights in this process. Within, passes without gradient need no synchronisation with other
        processes.
        """
        yield

    def sum_gradients(self, parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
        """Replace the gradient of each parameter by its sum over the processes; None if no process has one."""
        ranks.sum_gradients(parameters)

    def local_shard(self, tensor: Tensor) -> Tensor:
        """Return the part of a parameter or its gradient that this process holds."""
        return tensor

    def sum_over_shards(self, values: Sequence[float], ranks: Ranks) -> list[float]:
        """Return values, each a sum over this process's shard, summed over all shards."""
        return list(values)

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """Return every tensor of `model` in full, by name."""
        return model.state_dict()

    def full(self, tensor: Tensor) -> Tensor:
        """Return a parameter, or an optimizer's tensor for one, in full."""
        return tensor

    def shard_of(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Return the part of a full tensor that this process holds. `parameter` gives the sharding; both have the same
        shape.
        """
        return tensor
