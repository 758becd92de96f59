"""First on the PYTHONPATH of a process under libfaketime, which refuses what `time.sleep` of Python 3.11 asks of it."""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep
