"""First on the PYTHONPATH of a process under libfaketime, which refuses what `time.sleep` of Python 3.11 asks of it."""

import select
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep
