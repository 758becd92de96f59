"""The policy's weights as files, which the vLLM servers of a machine read."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

import torch

from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.models.tensor_files import write_tensors
from calibrl_core.rollout.own_folder import OwnFolder, sweep

MEMORY = Path("/dev/shm")  # files in memory
PREFIX = "calibrl-served-weights-"
FILE_BYTES = 2**27  # of a file, which is copied twice: small, so that the copies are


class WeightFiles:
    """Files of one version of the weights, in memory if there is room. One process of each machine writes them."""

    def __init__(self, policy: Policy, dtype: torch.dtype, ranks: Ranks) -> None:
        """Choose the folder. Every process must call this. `dtype`: of the weights in the files."""
        self._policy, self._dtype, self._ranks = policy, dtype, ranks
        size = policy.parameter_count * dtype.itemsize
        sweep(PREFIX, MEMORY)  # before its room is measured
        roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * size
        self._own = OwnFolder(PREFIX, MEMORY if roomy else Path(tempfile.gettempdir()))
        host = socket.gethostname()
        self._folder = next(path for name, path in ranks.gather_everywhere((host, self._own.path)) if name == host)
        self._writes = self._folder == self._own.path

    def write(self) -> list[str]:
        """Write the policy's weights; return the names of the files. Every process must call this, when it does not
        need the files of the last call any more.
        """
        self._ranks.any_process(False)  # waits for the others, whose servers can have been reading
        tensors = ((name, tensor.to(self._dtype)) for name, tensor in self._policy.saved_tensors())
        if self._writes:
            for file in self._folder.iterdir():
                file.unlink()
            write_tensors(self._folder, "model", tensors, {}, FILE_BYTES)
        else:
            for _ in tensors:
                pass
        self._ranks.any_process(False)  # waits for the writer
        return sorted(map(str, self._folder.glob("*.safetensors")))

    def close(self) -> None:
        """Remove the files."""
        self._own.close()
