"""The NVIDIA GPUs of this machine, read through NVML. `python -m worker.gpus` prints their number."""

from collections.abc import Sequence

import pynvml

from calibrl.schemas import GIB, GpuReading


def read(indices: Sequence[int] | None = None) -> list[GpuReading]:
    """Return the state of these GPUs (None: all), by index; empty if there is no driver.

    A GPU that fails during the read is left out, as is one split by MIG, which cannot report all values.
    """
    try:
        pynvml.nvmlInit()  # in each call: it only counts references, and a forked process must call it itself
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return []
    chosen = range(count) if indices is None else sorted(set(indices))
    return [gpu for gpu in map(_read_one, chosen) if gpu]


def gpu_indices(setting: str) -> Sequence[int] | None:
    """Return the GPU indices of the setting `worker_gpus` ("all", "none" or "0,2"); None means all."""
    if setting == "all":
        return None
    return () if setting == "none" else [int(index) for index in setting.split(",")]


def _read_one(index: int) -> GpuReading | None:
    try:
        card = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(card)
        return GpuReading(
            index=index,
            name=pynvml.nvmlDeviceGetName(card),
            uuid=pynvml.nvmlDeviceGetUUID(card),
            memory_total=memory.total,
            memory_used=memory.used,
            utilisation=pynvml.nvmlDeviceGetUtilizationRates(card).gpu,
        )
    except pynvml.NVMLError:  # the GPU has failed, or is being reset
        return None


def visible(indices: Sequence[int]) -> dict[str, str]:
    """Return environment variables that show a child process exactly these GPUs, in NVML's order."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, indices)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def is_free(gpu: GpuReading) -> bool:
    """Return True if a job can use the GPU: at most 1 GiB or 5 % of its memory is in use, by any process.

    The limit leaves room for the driver's reserve (up to about 600 MiB) and a display. A job that is still ending or
    an open notebook uses more: a second job beside it would run out of memory.
    """
    return gpu.memory_used <= max(GIB, 0.05 * gpu.memory_total)


if __name__ == "__main__":
    print(len(read()))  # noqa: T201
