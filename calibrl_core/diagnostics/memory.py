"""perf/memory_bytes: peak memory of the run so far."""

from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def memory_bytes(device: torch.device) -> dict[str, float]:
    """Return `perf/memory_bytes`: the peak of tensors on the GPU, or without a GPU the peak resident set of this
    process.

    The latter is available on Linux only (elsewhere the metric is absent): `getrusage` would include the memory that
    the parent process had before it started this one.
    """
    if device.type == "cuda":
        return {"perf/memory_bytes": float(torch.cuda.max_memory_allocated(device))}
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    peaks = [1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]  # "VmHWM:   123456 kB"
    return {"perf/memory_bytes": peaks[0]} if peaks else {}
