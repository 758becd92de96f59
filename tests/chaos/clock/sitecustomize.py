"""Replacement of `time.sleep` for processes under libfaketime, which refuses the system call of Python 3.11's own.

This folder is first on their PYTHONPATH.
"""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep
