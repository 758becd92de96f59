"""Peak memory of this process: torch's own count on a GPU, resident memory on a CPU."""

from __future__ import annotations

from pathlib import Path

import torch


def restart_peak(*, on_gpu: bool) -> int:
    """Forget the peak so far, and return the memory that is used now (bytes)."""
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # reset the kernel's record of peak resident memory
    return _memory("VmRSS")


def peak_bytes(*, on_gpu: bool) -> int:
    """Return the peak since `restart_peak` (bytes)."""
    return torch.cuda.max_memory_allocated() if on_gpu else _memory("VmHWM")


def _memory(name: str) -> int:
    """Return the memory of this process in bytes, as counted by the kernel."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(kilobytes) * 1024
