"""The policy's weights as files, which the vLLM servers of a machine read."""

from __future__ import annotations

import shutil
import socket
import tempfile
import weakref
from pathlib import Path

import torch

from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.models.tensor_files import write_tensors

MEMORY = Path("/dev/shm")  # files in memory


class WeightFiles:
    """Files of one version of the weights, in memory if there is room. One process of each machine writes them."""

    def __init__(self, policy: Policy, dtype: torch.dtype, ranks: Ranks) -> None:
        """Choose the folder. Every process must call this. `dtype`: of the weights in the files."""
        self._policy, self._dtype, self._ranks = policy, dtype, ranks
        size = policy.parameter_count * dtype.itemsize
        roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * size
        own = tempfile.mkdtemp(prefix="calibrl-weights-", dir=MEMORY if roomy else None)
        self.close = weakref.finalize(self, shutil.rmtree, own, ignore_errors=True)
        host = socket.gethostname()
        self._folder = Path(next(path for name, path in ranks.gather_everywhere((host, own)) if name == host))
        self._writes = self._folder == Path(own)

    def write(self) -> list[str]:
        """Write the policy's weights; return the names of the files. Every process must call this, when it does not
        need the files of the last call any more.
        """
        self._ranks.any_process(False)  # waits for the others, whose servers can have been reading
        tensors = ((name, tensor.to(self._dtype)) for name, tensor in self._policy.saved_tensors())
        if self._writes:
            for file in self._folder.iterdir():
                file.unlink()
            write_tensors(self._folder, "model", tensors, {})
        else:
            for _ in tensors:
                pass
        self._ranks.any_process(False)  # waits for the writer
        return sorted(map(str, self._folder.glob("*.safetensors")))
