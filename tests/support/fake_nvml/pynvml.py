"""The functions of NVML that `worker.gpus` calls, answered from the file FAKE_NVML (see this folder's `__init__`)."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from calibrl.schemas import GIB


class NVMLError(Exception):
    pass


def _cards() -> list[dict[str, Any]]:
    try:
        cards: list[dict[str, Any]] = json.loads(Path(os.environ["FAKE_NVML"]).read_text())
    except (KeyError, FileNotFoundError):
        raise NVMLError("NVML Shared Library Not Found") from None
    return cards


def _card(index: int) -> dict[str, Any]:
    cards = _cards()
    if index not in range(len(cards)):
        raise NVMLError("Invalid Argument")
    if cards[index]["fails"]:
        raise NVMLError("GPU is lost")
    return cards[index]


def nvmlInit() -> None:
    _cards()


def nvmlDeviceGetCount() -> int:
    return len(_cards())


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    _card(index)
    return index


def nvmlDeviceGetName(handle: int) -> str:
    return str(_card(handle)["name"])


def nvmlDeviceGetUUID(handle: int) -> str:
    _card(handle)
    return f"GPU-{handle:08d}"


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:
    card = _card(handle)
    total, used = (int(card[name] * GIB) for name in ("total", "used"))
    return SimpleNamespace(total=total, used=used, free=total - used)


def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:
    return SimpleNamespace(gpu=_card(handle)["utilisation"], memory=0)
