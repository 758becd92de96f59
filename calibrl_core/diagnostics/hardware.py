"""Use of the hardware by each process of a run: CPU, memory and GPU since the step before."""

import resource
import time
from contextlib import suppress
from pathlib import Path

import torch

from calibrl_core.diagnostics.memory import memory_bytes
from calibrl_core.distributed.ranks import Ranks

PAGE = resource.getpagesize()
_PAGES = Path("/proc/self/statm")


class HardwareUse:
    """The use of one process, and its CPU time at the last reading."""

    def __init__(self, device: torch.device, ranks: Ranks) -> None:
        self._device, self._ranks = device, ranks
        self._cpu, self._at = time.process_time(), time.monotonic()

    def read(self) -> dict[str, float]:
        """Return `perf/memory_bytes`, and `perf/<name>/<rank>` of each process in the first one.

        `cpu_cores`: CPU seconds per second since the last reading. `host_memory_bytes`: resident memory now.
        `gpu_memory_bytes` and `gpu_utilisation` (percent): of the whole GPU, by all processes, as far as the driver
        reports them.
        """
        cpu, now = time.process_time(), time.monotonic()
        own = {"cpu_cores": (cpu - self._cpu) / max(now - self._at, 1e-9)}
        self._cpu, self._at = cpu, now
        if _PAGES.exists():
            own["host_memory_bytes"] = float(PAGE * int(_PAGES.read_text().split()[1]))
        if self._device.type == "cuda":
            own |= _of_gpu(self._device)
        by_rank = enumerate(self._ranks.gather(own) or [])
        each = {f"perf/{name}/{rank}": value for rank, use in by_rank for name, value in use.items()}
        return memory_bytes(self._device) | each


def _of_gpu(device: torch.device) -> dict[str, float]:
    free, total = torch.cuda.mem_get_info(device)
    use = {"gpu_memory_bytes": float(total - free)}
    with suppress(Exception):  # errors of NVML, whose package can be missing: a reading never ends a run
        use["gpu_utilisation"] = float(torch.cuda.utilization(device))
    return use
