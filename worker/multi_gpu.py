"""The command that trains in several processes, one for each GPU."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

SETTINGS = Path(__file__).with_name("accelerate.yaml")
LAUNCHER_SECONDS = 30  # more than the trainers get to stop, so that it is the worker who kills


def command(module: str, arguments: Sequence[str], processes: int) -> list[str]:
    """`python -m module arguments...` in so many processes, two at least."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SETTINGS)]
    return [*launcher, "--num_processes", str(processes), "--module", module, *arguments]


def environment(grace: float) -> dict[str, str]:
    """What the launcher needs to know besides: that trainers which are asked to stop have `grace` seconds to do so."""
    return {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(math.ceil(grace) + LAUNCHER_SECONDS)}
