"""perf/memory_bytes: the most memory that the run has held so far."""

from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def memory_bytes(device: torch.device) -> dict[str, float]:
    """`perf/memory_bytes`: tensors on the GPU at their peak; without one, this process's resident set at its peak.

    Linux only for the latter (nothing elsewhere): `getrusage` would count what the parent held before it started us.
    """
    if device.type == "cuda":
        return {"perf/memory_bytes": float(torch.cuda.max_memory_allocated(device))}
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    peaks = [1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]  # "VmHWM:   123456 kB"
    return {"perf/memory_bytes": peaks[0]} if peaks else {}
