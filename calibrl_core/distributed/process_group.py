"""Several processes as one run, through torch.distributed. `accelerate launch` or `torchrun` starts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from calibrl_core.distributed.ranks import LaunchError, Ranks

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)  # limit of each collective; a process that waits longer ends with an error
BUCKET_ELEMENTS = 2**25  # gradients that are summed together: 128 MB


@contextmanager
def join_process_group() -> Iterator[Ranks]:
    """Join the processes that a launcher started; without a launcher, yield this process alone.

    On GPUs, process n of a machine takes GPU n.

    Raises:
        LaunchError: a machine has fewer GPUs than processes.
    """
    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        yield Ranks()
        return
    gpus = torch.cuda.device_count()
    if gpus:
        place = distributed.get_node_local_rank()
        if place >= gpus:
            raise LaunchError(f"more processes were started than this machine has GPUs ({gpus}): start one per GPU")
        torch.cuda.set_device(place)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=TIMEOUT)
    yield DistributedRanks()
    distributed.destroy_process_group()  # not after an error: other processes may wait for this one


class DistributedRanks(Ranks):
    """Several processes. Small values travel between CPUs; gradients between the devices that hold them."""

    def __init__(self) -> None:
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()

    def sum_over(self, values: Sequence[float]) -> list[float]:
        return _reduced(values, distributed.ReduceOp.SUM)

    def max_over(self, values: Sequence[float]) -> list[float]:
        return _reduced(values, distributed.ReduceOp.MAX)

    def any_process(self, flag: bool) -> bool:
        return self.max_over([flag]) == [1.0]

    def from_first(self, value: T) -> T:
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def gather(self, value: T) -> list[T] | None:
        values = [value] * self.world if self.first else None
        distributed.gather_object(value, values)
        return values

    def gather_everywhere(self, value: T) -> list[T]:
        values = [value] * self.world
        distributed.all_gather_object(values, value)
        return values

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        present = self.max_over([parameter.grad is not None for parameter in parameters])
        gradients = []
        for parameter, there in zip(parameters, present, strict=True):
            if there:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            distributed.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


def _reduced(values: Sequence[float], operation: distributed.ReduceOp.RedOpType) -> list[float]:
    """Return `values` reduced over all processes, in float64."""
    tensor = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(tensor, operation)
    return tensor.tolist()


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield consecutive gradients of one dtype together, up to `BUCKET_ELEMENTS` unless a single one is larger."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.numel() > BUCKET_ELEMENTS or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket
