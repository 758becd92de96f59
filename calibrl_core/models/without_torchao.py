"""Makes transformers and peft work as if torchao were not installed. Import it before transformers.

Both import all of an installed torchao with their first model: that takes seconds, prints warnings, and asks CUDA for
its devices, which fixes those that a waiting trainer can see. Only `step/adamw_8bit.py` uses torchao.
"""

import sys
from collections.abc import Callable

from transformers.utils import import_utils


def hide_torchao(is_available: Callable[[], bool]) -> None:
    """Let a library's cached check find no torchao."""
    if "torchao" in sys.modules:
        return
    sys.modules["torchao"] = None  # type: ignore[assignment]
    try:
        is_available()
    finally:
        del sys.modules["torchao"]


hide_torchao(import_utils.is_torchao_available)
