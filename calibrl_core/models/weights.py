"""Access to a policy's weights. `Weights`: all in this process. `calibrl_core.models.sharded_weights`: one shard per
process (FSDP2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.quantisation import quantised_layers
from calibrl_core.models.tensor_files import TensorFiles

if TYPE_CHECKING:
    from calibrl_core.config import TrainConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Sharding:
    """Distribution of the weights over processes (FSDP2). `size`: processes that share one copy; None: all. `offload`:
    keep the shards in host memory."""

    size: int | None = None
    offload: bool = False


def sharding_of(config: TrainConfig, world: int) -> Sharding | None:
    """Return the distribution of the weights of a run over `world` processes; None: each holds all."""
    if config.parallel != "fsdp" or world == 1:
        return None
    return Sharding(config.shard_size, config.cpu_offload)


# The prefix that names the layer of a tensor; outside the layers, the module with its adapter, or the tensor alone.
_GROUP = re.compile(r".*?\.\d+\.|.*?(?=\.base_layer\.|\.lora_)")


def _group(name: str) -> str:
    found = _GROUP.match(name)
    return found[0] if found else name


class Weights:
    """Weights that this process holds in full."""

    sharding: Sharding | None = None
    shards = 1  # parts of a tensor along its first axis, each held by another process

    @property
    def sharded(self) -> bool:
        """Return if this process holds one shard only."""
        return self.sharding is not None

    def run(self, function: Callable[[], T]) -> T:
        """Return `function()`, a forward pass, with the weights that it needs. If it needs a gradient it must return
        tensors or tuples of tensors.
        """
        return function()

    def run_head(self, function: Callable[..., T], *inputs: Tensor) -> T:
        """Return `function(*inputs)`, a part of a pass within `run` that needs the output layer."""
        return function(*inputs)

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

    def first_row(self, parameter: Tensor) -> int:
        """Return the index of the first row of a parameter that this process holds."""
        return 0

    def with_shard(self, part: Tensor, parameter: Tensor, shape: torch.Size) -> Tensor:
        """Return the tensor of this shape of which this process holds `part`, sharded as the parameter is."""
        return part

    def sum_over_shards(self, values: Sequence[float], ranks: Ranks) -> list[float]:
        """Return values, each a sum over this process's shard, summed over all shards."""
        return list(values)

    def parts(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Yield every tensor of `model` in full, by name, on its device: the tensors of a layer together, others one by
        one. Of tied tensors, one. Quantised weights are dequantised. Every process must iterate to the end.
        """
        named = model.state_dict(keep_vars=True)
        declared: Collection[str] = getattr(model, "all_tied_weights_keys", ())
        distinct = {id(named[name]): name for name in sorted(named, key=lambda name: name not in declared)}
        groups: dict[str, list[str]] = {}
        for name in named:
            if distinct[id(named[name])] == name:
                groups.setdefault(_group(name), []).append(name)
        quantised = {f"{name}.weight": layer for name, layer in quantised_layers(model).items()}
        for name in quantised:
            groups.setdefault(_group(name), []).append(name)
        for names in groups.values():
            yield {
                name: quantised[name].weight if name in quantised else self.full(named[name].detach()) for name in names
            }

    def full(self, tensor: Tensor) -> Tensor:
        """Return a parameter, or an optimizer's tensor for one, in full, on its device."""
        return tensor

    def read(self, files: TensorFiles, name: str, parameter: Tensor) -> Tensor:
        """Return this process's part of a tensor in files. `parameter` gives the sharding if both have the same shape;
        otherwise the whole tensor is returned.
        """
        return files.read(name)
