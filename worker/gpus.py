"""The device of a worker's slot: the CPU, or one GPU by its index."""

import ctypes
from contextlib import suppress


def visible(device: str) -> dict[str, str]:
    """The environment that shows a child exactly this device."""
    return {"CUDA_VISIBLE_DEVICES": "" if device == "cpu" else device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def slot_gpus(device: str) -> int:
    """How many GPUs the slot's jobs ask for."""
    return 0 if device == "cpu" else 1


def names() -> list[str]:
    """The names of this machine's NVIDIA GPUs, by index; empty where there is no driver."""
    with suppress(OSError):
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        count = ctypes.c_uint(0)
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return []
        return [_name(nvml, index) for index in range(count.value)]
    return []


def _name(nvml: ctypes.CDLL, index: int) -> str:
    handle, text = ctypes.c_void_p(), ctypes.create_string_buffer(96)
    nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
    nvml.nvmlDeviceGetName(handle, text, len(text))
    return text.value.decode(errors="replace")


def describe(device: str) -> str:
    """The device as people know it: `cpu`, or a GPU's index and name."""
    found = names()
    return f"{device} {found[int(device)]}" if device != "cpu" and int(device) < len(found) else device


if __name__ == "__main__":
    print(len(names()))  # noqa: T201
