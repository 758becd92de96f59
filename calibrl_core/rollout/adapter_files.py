"""The policy's adapters as files, which the vLLM servers of a machine load beside weights that never change."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.vllm_server import AdapterError, RefusedError, ServerError, VLLMServer
from calibrl_core.rollout.weight_files import MachineFolder

ROOMS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the largest ranks of an adapter that vLLM can be started with


def room_for(policy: Policy) -> int | None:
    """Return the largest rank to start vLLM with. None: it cannot load the policy's adapters, because there are none,
    one is outside of the language model, they are of DoRA, or their rank is too large.
    """
    lora = policy.lora
    if lora is None or lora.dora or not lora.language_only:
        return None
    return next((room for room in ROOMS if room >= lora.rank), None)


@dataclass(frozen=True)
class AdapterUpdate:
    """An adapter in peft's format, with a name and a folder that no other one of the run has."""

    adapter: str
    folder: Path
    before: str | None  # name of the adapter that it replaces
    layers: int  # that it changes
    version: str  # that each completion names

    def load(self, server: VLLMServer) -> None:
        """Load the adapter: see `WeightUpdate.load`. vLLM would ignore layers that it does not know.

        Raises:
            AdapterError: the server does not load the adapter, or does not know some of its layers.
        """
        if self.before:
            with suppress(RefusedError):  # a server that was started again does not have it
                server.call("POST", "/v1/unload_lora_adapter", {"lora_name": self.before})
        try:
            server.call("POST", "/v1/load_lora_adapter", {"lora_name": self.adapter, "lora_path": str(self.folder)})
        except (RefusedError, ServerError) as error:  # vLLM calls every adapter that it cannot load its own failure
            raise AdapterError(str(error)) from error
        answer = server.call("POST", "/collective_rpc", {"method": "calibrl_adapted_layers"})
        for found in answer["results"]:
            if int(found) != self.layers:
                raise AdapterError(f"vLLM's server applies {found} of {self.layers} adapted layers")
        server.call("POST", "/update_weight_version", {"new_version": self.version})


class AdapterFiles:
    """The weights without adapters once, and the adapters for each update."""

    def __init__(self, policy: Policy, dtype: torch.dtype, ranks: Ranks) -> None:
        """Write the weights without adapters. Every process must call this. `dtype`: of these weights."""
        self._policy, self._ranks = policy, ranks
        self._folder = MachineFolder(policy.parameter_count * dtype.itemsize, ranks)
        self._folder.write(policy.saved_tensors(merged=False), dtype)
        ranks.any_process(False)  # waits for the writer
        self._count = 0  # of updates
        self._last: AdapterUpdate | None = None
        self.form: Sequence[Path] = sorted(self._folder.path.glob("model*"))
        # vLLM holds one adapter at a time.
        self.arguments: Mapping[str, Any] = {
            "load_format": "safetensors",
            "enable_lora": True,
            "max_lora_rank": room_for(policy),
        }

    def write(self, version: int) -> AdapterUpdate:
        """Write the policy's adapters: see `ServedWeights.write`."""
        self._ranks.any_process(False)  # waits for the others, whose servers can have been reading
        self._count += 1
        last, folder = self._last, self._folder.path / f"adapter-{self._count}"
        if last and self._folder.writes:
            shutil.rmtree(last.folder)
        self._policy.save_adapter(folder, writes=self._folder.writes)
        self._ranks.any_process(False)  # waits for the writer
        name, before = f"step-{version}-{self._count}", last.adapter if last else None
        lora = self._policy.lora
        assert lora is not None
        self._last = AdapterUpdate(name, folder, before, lora.layers, str(version))
        return self._last

    def close(self) -> None:
        """Remove the files."""
        self._folder.close()
