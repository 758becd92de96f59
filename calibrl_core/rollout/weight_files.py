"""The policy's weights as files, which the vLLM servers of a machine read."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.models.tensor_files import write_tensors
from calibrl_core.rollout.own_folder import OwnFolder, sweep
from calibrl_core.rollout.vllm_server import VLLMServer

MEMORY = Path("/dev/shm")  # files in memory
PREFIX = "calibrl-served-weights-"
FILE_BYTES = 2**27  # of a file, which is copied twice: small, so that the copies are


class WeightUpdate(Protocol):
    """New weights for servers, in files that stay until the next update is written."""

    @property
    def adapter(self) -> str | None:
        """Return the name that requests must give; None: no adapter."""

    def load(self, server: VLLMServer) -> None:
        """Let a server that samples nothing load the weights.

        Raises:
            ServerError: it failed, and its weights are unknown.
        """


class ServedWeights(Protocol):
    """Passes a policy's weights to servers. Every process of a run makes one, and calls it when the others do."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Return vLLM's arguments of a server that gets the weights."""

    @property
    def form(self) -> Sequence[Path]:
        """Return the files that a server needs at its start, beside those of `Policy.save_form`."""

    def write(self, version: int) -> WeightUpdate:
        """Write the policy's weights. No server needs the files of the last call any more."""

    def close(self) -> None:
        """Remove the files."""


class MachineFolder:
    """A folder that the processes of a machine share, in memory if there is room. One of them writes it."""

    def __init__(self, size: int, ranks: Ranks) -> None:
        """Choose the folder. Every process must call this. `size`: of its files, in bytes."""
        sweep(PREFIX, MEMORY)  # before its room is measured
        roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * size
        self._own = OwnFolder(PREFIX, MEMORY if roomy else Path(tempfile.gettempdir()))
        host = socket.gethostname()
        self.path = next(path for name, path in ranks.gather_everywhere((host, self._own.path)) if name == host)
        self.writes = self.path == self._own.path  # this process writes

    def write(self, tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> None:
        """Write tensors, by name. Every process must call this, since the processes exchange weights."""
        converted = ((name, tensor.to(dtype)) for name, tensor in tensors)
        if self.writes:
            write_tensors(self.path, "model", converted, {}, FILE_BYTES)
        else:
            for _ in converted:
                pass

    def close(self) -> None:
        """Remove the folder, if this process made it."""
        self._own.close()


@dataclass(frozen=True)
class WholeUpdate:
    """Safetensors files of all weights, and the version that each completion names."""

    files: Sequence[str]
    version: str
    adapter: None = None

    def load(self, server: VLLMServer) -> None:
        """Load all weights: see `WeightUpdate.load`."""
        server.call("POST", "/start_weight_update")
        server.call("POST", "/update_weights", {"update_info": {"paths": list(self.files)}})
        server.call("POST", "/finish_weight_update", {"weight_version": self.version})


class WeightFiles:
    """All weights, with adapters merged, for each update."""

    arguments: Mapping[str, Any] = {"load_format": "dummy"}  # the first update has the weights
    form: Sequence[Path] = ()

    def __init__(self, policy: Policy, dtype: torch.dtype, ranks: Ranks) -> None:
        """Choose the folder. Every process must call this. `dtype`: of the weights in the files."""
        self._policy, self._dtype, self._ranks = policy, dtype, ranks
        self._folder = MachineFolder(policy.parameter_count * dtype.itemsize, ranks)

    def write(self, version: int) -> WholeUpdate:
        """Write the policy's weights: see `ServedWeights.write`."""
        self._ranks.any_process(False)  # waits for the others, whose servers can have been reading
        if self._folder.writes:
            for file in self._folder.path.iterdir():
                file.unlink()
        self._folder.write(self._policy.saved_tensors(), self._dtype)
        self._ranks.any_process(False)  # waits for the writer
        return WholeUpdate(sorted(map(str, self._folder.path.glob("*.safetensors"))), str(version))

    def close(self) -> None:
        """Remove the files."""
        self._folder.close()
