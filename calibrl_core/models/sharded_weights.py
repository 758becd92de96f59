"""FSDP2 (`fully_shard`): each process holds a shard of every weight, of its gradient and of the optimizer's moments.

The decoder's layers are gathered one by one as a pass reaches them. Three other units are gathered once per pass:

- the front (vision tower, its projection, embeddings): from the start of the pass to the first layer, and again when
  the backward pass reaches this layer
- the head, while log-probabilities are computed
- the rest, for the whole pass: the last norm, and embeddings that are also the head

So a vision tower can run any number of times, also not at all if a micro-batch has no images, without the processes
losing step. But every process must run the same number of passes
(`calibrl_core.step.token_logprobs.padded_to_equal_passes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.tensor_files import TensorFiles
from calibrl_core.models.weights import Sharding, Weights

T = TypeVar("T")


def shard(
    model: Any, device: torch.device, convert: Callable[[nn.Module], None], sharding: Sharding, *, bfloat16: bool
) -> ShardedWeights:
    """Hold only this process's shard of a model's weights. All processes must hold equal weights and call this before
    an optimizer is made.

    convert: called for each module that has weights, before it is sharded, to bring these (without those of its
    children) to `device` and to their dtype. So one unit at a time is whole.
    bfloat16: gather the layers in bfloat16, and sum their gradients in float32.

    Raises:
        RuntimeError: some weights were not sharded.
    """
    mesh = _mesh(device, sharding.size)
    policy = CPUOffloadPolicy(pin_memory=device.type == "cuda") if sharding.offload else OffloadPolicy()
    # Autocast converts inputs where a layer needs it. Outside the layers is the head, which stays in float32.
    in_layers = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    layers, (front, head) = _layers(model.get_decoder()), _around_layers(model)
    done: set[nn.Module] = set()
    for unit in (*layers, front, head):
        for module in unit.modules():
            convert(module)
        precision = in_layers if bfloat16 and unit in layers else MixedPrecisionPolicy()
        fully_shard(unit, mesh=mesh, mp_policy=precision, offload_policy=policy)
        done.update(unit.modules())
    for module in model.modules():
        if module not in done:
            convert(module)
    root = _Pass(model, front, head)
    ignored = {*front.parameters(), *head.parameters()}
    fully_shard(root, mesh=mesh, offload_policy=policy, ignored_params=ignored)
    if not all(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise RuntimeError("fully_shard left some weights whole")
    return ShardedWeights(root, [cast(FSDPModule, layer) for layer in layers], sharding, mesh.size() // mesh.shape[-1])


def _around_layers(model: Any) -> tuple[_Part, _Part]:
    """Return what a pass needs before the decoder's layers, and the head. Without embeddings that are also the head."""
    decoder, embeddings, head = model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings()

    def beside(module: nn.Module) -> list[nn.Module]:
        """Return the largest modules in it that have no part of the decoder, and are not the head."""
        found: list[nn.Module] = []
        for child in module.children():
            if child is not decoder and child is not head:
                found += beside(child) if decoder in {*child.modules()} else [child]
        return found

    if embeddings.weight is head.weight:
        return _Part(beside(model)), _Part([])
    return _Part([*beside(model), embeddings]), _Part([head])


def _mesh(device: torch.device, size: int | None) -> DeviceMesh:
    """Return all processes in one row, or `size` neighbours per row (HSDP): each row holds one copy of the weights."""
    world = distributed.get_world_size()
    if size is None or size == world:
        return init_device_mesh(device.type, (world,))
    return init_device_mesh(device.type, (world // size, size), mesh_dim_names=("copy", "shard"))


def _layers(decoder: nn.Module) -> list[nn.Module]:
    """Return the members of the outermost module lists: the layers that a decoder calls one after the other."""
    layers: list[nn.Module] = []
    for child in decoder.children():
        layers += child if isinstance(child, nn.ModuleList) else _layers(child)
    return layers


class _Part(nn.Module):
    """Some modules of a model as one unit of weights. A call computes a function, with these weights gathered."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, function: Callable[..., T], *inputs: Tensor) -> T:
        return function(*inputs)


class _Pass(nn.Module):
    """A whole pass, from tokens to log-probabilities, as one module."""

    def __init__(self, model: nn.Module, front: _Part, head: _Part) -> None:
        super().__init__()
        self.model, self.front, self.head = model, front, head

    def forward(self, function: Callable[[], T]) -> T:
        return function()


class ShardedWeights(Weights):
    """Weights of which each process holds one shard."""

    def __init__(self, root: _Pass, layers: list[FSDPModule], sharding: Sharding, copies: int) -> None:
        """`copies`: how often all processes together hold each shard."""
        self._root, self._front, self._head = (cast(FSDPModule, one) for one in (root, root.front, root.head))
        self._layers, self.sharding, self._copies = layers, sharding, copies
        self.shards = distributed.get_world_size() // copies
        self._gathered = False
        units = (self._root, self._head, *reversed(layers))  # in the order of a backward pass
        for unit in (*units, self._front):
            # A token's weight in the loss is divided by the tokens of all processes, so gradients must be summed.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)
        # By default a backward pass prefetches in the order of earlier passes, including those without gradient. These
        # differ between processes (only some have rows with an expert, only one measures a validation), which would
        # wait for each other in different collectives. So the order is fixed: from the last layer to the first.
        for unit, ahead in zip(units, (*units[1:], self._root), strict=True):
            unit.set_modules_to_backward_prefetch([ahead])
        # If the rows of a process have no image, its vision tower has no gradient, but others wait for one: it sends 0.
        for unit in (self._root, self._front):
            unit.set_reduce_scatter_unused_params(True, recurse=False)
        self._touched: set[str] = set()  # weights outside the layers that had a gradient in this process
        outside = self.run(self._watch)  # torch takes the module that runs first for the root
        self._root.reshard()
        self._front.reshard()
        self._outside = {one: name for name, one in root.named_parameters() if name in outside}
        first = cast(nn.Module, layers[0])
        first.register_forward_pre_hook(self._leave_front, prepend=True)
        if any(one.requires_grad for one in root.front.parameters()):
            first.register_forward_hook(self._come_back_to_front)

    def _watch(self) -> set[str]:
        """Register hooks that record which weights outside the layers get a gradient; return their names. These weights
        are gathered at this moment.
        """
        watched = set()
        for name, parameter in cast(nn.Module, self._root).named_parameters():
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                parameter.register_post_accumulate_grad_hook(lambda _, name=name: self._touched.add(name))
                watched.add(name)
        return watched

    def run(self, function: Callable[[], T]) -> T:
        def from_front() -> T:
            self._front.unshard()
            return function()

        result = cast(T, cast(nn.Module, self._root)(from_front))
        if not self._gathered and not torch.is_grad_enabled():
            self._root.reshard()  # without a backward pass, torch would keep the rest whole
        return result

    def run_head(self, function: Callable[..., T], *inputs: Tensor) -> T:
        return cast(T, cast(nn.Module, self._head)(function, *inputs))

    def _leave_front(self, layer: nn.Module, inputs: Any) -> None:
        """Release the front before the first layer: its weights are used in no later part of a pass."""
        if not self._gathered:
            self._front.reshard()

    def _come_back_to_front(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        """Gather the front when the backward pass comes to the first layer, in every process, also without images."""
        hidden = output[0] if isinstance(output, tuple) else output
        if torch.is_grad_enabled() and hidden.requires_grad:
            hidden.register_hook(lambda _: self._front.unshard())

    @contextmanager
    def gathered(self) -> Iterator[None]:
        units = (self._root, self._front, self._head, *self._layers)
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        self._gathered = True
        try:
            yield
        finally:
            self._gathered = False
            for unit in units:
                unit.reshard()
            for unit in (self._head, *self._layers):
                unit.set_reshard_after_forward(True, recurse=False)

    def parts(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Yield every tensor: see `Weights.parts`.

        Raises:
            RuntimeError: called within `gathered`. torch shards all weights again to list them, so processes that still
                use the whole weights would wait for each other without end.
        """
        if self._gathered:
            raise RuntimeError("the tensors of a model cannot be listed within gathered(): list them before or after")
        return super().parts(model)

    def sum_gradients(self, parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
        """Set the gradient of parameters unused on every process to None, so that AdamW skips them.

        Gradients were summed in the backward pass already, in which unused parameters had to send 0.
        """
        names = [self._outside.get(parameter) for parameter in parameters]
        touched = ranks.max_over([name is None or name in self._touched for name in names])
        for parameter, there in zip(parameters, touched, strict=True):
            parameter.grad = parameter.grad if there else None
        self._touched.clear()

    def local_shard(self, tensor: Tensor) -> Tensor:
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def sum_over_shards(self, values: Sequence[float], ranks: Ranks) -> list[float]:
        return [value / self._copies for value in ranks.sum_over(values)]

    def full(self, tensor: Tensor) -> Tensor:
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def first_row(self, parameter: Tensor) -> int:
        return _rows(parameter)[0] if isinstance(parameter, DTensor) else 0

    def with_shard(self, part: Tensor, parameter: Tensor, shape: torch.Size) -> Tensor:
        if not isinstance(parameter, DTensor):
            return part
        whole = DTensor.from_local(
            part,
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=shape,
            stride=torch.empty(shape, device="meta").stride(),
        )
        return whole.to(parameter.device)  # offloaded: `from_local` moves it to the device of the mesh

    def read(self, files: TensorFiles, name: str, parameter: Tensor) -> Tensor:
        if not isinstance(parameter, DTensor) or files.shape(name) != parameter.shape:
            return files.read(name)
        part = files.read_rows(name, *_rows(parameter)).to(parameter.device)
        return self.with_shard(part, parameter, parameter.shape)


def _rows(parameter: DTensor) -> tuple[int, int]:
    """Return the first row that this process holds, and the number of rows: shards are blocks of the first axis."""
    shape, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    return offset[0], shape[0]
