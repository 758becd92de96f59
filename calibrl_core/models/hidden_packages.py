"""Makes transformers and peft work as if torchao and bitsandbytes were not installed. Import it before transformers.

Both import all of an installed torchao with their first model, peft also bitsandbytes: that takes seconds, prints
warnings, and asks CUDA for its devices, which fixes those that a waiting trainer can see. Only `step/adamw_8bit.py`
uses torchao, and only `quantisation.py` uses bitsandbytes.
"""

import sys
from collections.abc import Callable

from transformers.utils import import_utils


def hide(package: str, is_available: Callable[[], bool]) -> None:
    """Let a library's cached check find no such package, unless it is imported already."""
    if package in sys.modules:
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        is_available()
    finally:
        del sys.modules[package]


hide("torchao", import_utils.is_torchao_available)
