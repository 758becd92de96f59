"""The command that runs a job in several processes: one per GPU, without the GPUs of its servers of rollouts."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SETTINGS = Path(__file__).with_name("accelerate.yaml")
LAUNCHER_SECONDS = 30  # longer than the trainers' grace period, so that the worker kills them, not the launcher


def process_count(config: Mapping[str, Any], gpus: int) -> int:
    """Return the number of processes of a job with this config (JSON) and number of GPUs; 1 without a GPU."""
    return max(1, gpus - (config.get("rollout", {}).get("server_gpus") or 0))


def command(module: str, arguments: Sequence[str], processes: int) -> list[str]:
    """Return the command for `python -m module arguments...` in `processes` processes (at least 2)."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SETTINGS)]
    return [*launcher, "--num_processes", str(processes), "--module", module, *arguments]


def environment(grace: float) -> dict[str, str]:
    """Return variables for the launcher: it gives trainers `grace` seconds to stop after a signal."""
    return {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(math.ceil(grace) + LAUNCHER_SECONDS)}
