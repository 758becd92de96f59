"""The NVIDIA GPUs of this machine, as their driver (NVML) tells. `python -m worker.gpus` prints how many there are."""

from collections.abc import Sequence

import pynvml

from calibrl.schemas import GpuReading

GIBIBYTE = 2**30


def read(indices: Sequence[int] | None = None) -> list[GpuReading]:
    """How these cards stand (None: all), by index; empty where there is no driver.

    A card that fails while it is asked is left out, as is one that can't tell all of this (split by MIG).
    """
    try:
        pynvml.nvmlInit()  # again in each call: it only counts, and a forked process has to
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return []
    wanted = range(count) if indices is None else sorted(set(indices))
    return [gpu for gpu in map(_read_one, wanted) if gpu]


def chosen(setting: str) -> Sequence[int] | None:
    """The cards that the setting `worker_gpus` means, for `read`: all, none, or indices such as 0,2."""
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
    except pynvml.NVMLError:  # fallen off the bus, or reset at this moment
        return None


def visible(indices: Sequence[int]) -> dict[str, str]:
    """The environment that shows a child exactly these cards, numbered as NVML does."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, indices)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def is_free(gpu: GpuReading) -> bool:
    """Whether a job may have the card: at most 1 GiB of its memory, or 5 %, is in use, whoever uses it.

    That holds the driver's reserve (up to some 600 MiB) and a display, but no job that is still on its way out, and
    nobody's notebook: one more job beside those would run out of memory.
    """
    return gpu.memory_used <= max(GIBIBYTE, 0.05 * gpu.memory_total)


if __name__ == "__main__":
    print(len(read()))  # noqa: T201
