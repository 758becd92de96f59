"""vLLM's side of `ServedEngine`: every worker of a server imports this module (`--worker-extension-cls`).

It adds a transport to vLLM's protocol for new weights: the worker reads them from files that the trainer wrote.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

TRANSPORT = "calibrl_files"


@dataclass
class NoPreparation(WeightTransferInitInfo):  # type: ignore[misc,unused-ignore]
    """vLLM's protocol begins with this message; files need no connection."""


@dataclass
class WeightPaths(WeightTransferUpdateInfo):  # type: ignore[misc,unused-ignore]
    """Safetensors files with all weights of the model."""

    paths: list[str]


class FileTransport(WeightTransferEngine):  # type: ignore[misc,type-arg,unused-ignore]
    """Loads weights from files. Layer by layer, since kernels keep weights in forms of their own."""

    init_info_cls, update_info_cls = NoPreparation, WeightPaths

    def init_transfer_engine(self, init_info: NoPreparation) -> None:
        """Do nothing: see `NoPreparation`."""

    def start_weight_update(self) -> None:
        """Prepare the model for new weights."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: WeightPaths) -> None:
        """Load the files."""
        self.model.load_weights(_tensors(update_info.paths))

    def finish_weight_update(self) -> None:
        """Bring the loaded weights into the form that the kernels need."""
        finalize_layerwise_reload(self.model, self.model_config)
        for layer in self.model.modules():
            method = getattr(layer, "quant_method", None)
            # A head that shares the weights of the embeddings got none of its own: its form for CPU kernels is stale.
            if isinstance(layer, ParallelLMHead) and isinstance(method, UnquantizedEmbeddingMethod):
                method.process_weights_after_loading(layer)

    def shutdown(self) -> None:
        """Do nothing: no connection is open."""


def _tensors(paths: list[str]) -> Iterator[tuple[str, Tensor]]:
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                yield name, file.get_tensor(name)


class WorkerExtension:
    """Methods that the trainer can call on every worker."""

    model_runner: Any  # of the worker that vLLM extends by this class

    def calibrl_answer(self) -> bool:
        """Return true: a worker that hangs does not."""
        return True

    def calibrl_adapted_layers(self) -> int:
        """Return the number of layers of the trainer that the loaded adapter changes here; vLLM packs some together."""
        manager = self.model_runner.lora_manager._adapter_manager
        (adapter,) = manager.list_adapters().values()
        weights = [manager._get_lora_layer_weights(adapter, name) for name in manager.modules]
        packed = [one.lora_a if isinstance(one.lora_a, list) else [one.lora_a] for one in weights if one]
        return sum(part is not None for parts in packed for part in parts)


WeightTransferEngineFactory.register_engine(TRANSPORT, FileTransport)
