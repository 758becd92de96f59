"""The command that runs a job in several processes, on one machine or on several: one per GPU, without the
GPUs of its servers of rollouts."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SETTINGS = Path(__file__).with_name("accelerate.yaml")
LAUNCHER_SECONDS = 30  # longer than the trainers' grace period, so that the worker kills them, not the launcher
MEET_SECONDS = 300  # for which the launchers of several machines wait for each other


@dataclass(frozen=True)
class MachineGroup:
    """Place of a machine among those that run a job. `endpoint`: "address:port" of the one with rank 0."""

    machines: int
    rank: int
    endpoint: str


def command(module: str, arguments: Sequence[str], processes: int, group: MachineGroup | None = None) -> list[str]:
    """Return the command for `python -m module arguments...` in `processes` processes on this machine.

    `group`: None if no other machine takes part. Of all processes there are at least 2. The rendezvous is static: the
    process that writes the run is on the machine with rank 0, which another kind of rendezvous does not ensure.
    """
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SETTINGS)]
    machines = 1
    if group:
        machines, (host, _, port) = group.machines, group.endpoint.rpartition(":")
        launcher += ["--num_machines", str(machines), "--machine_rank", str(group.rank), "--same_network"]
        launcher += ["--main_process_ip", host, "--main_process_port", port, "--rdzv_conf", f"timeout={MEET_SECONDS}"]
    return [*launcher, "--num_processes", str(machines * processes), "--module", module, *arguments]


def environment(grace: float) -> dict[str, str]:
    """Return variables for the launcher: it gives trainers `grace` seconds to stop after a signal."""
    return {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(math.ceil(grace) + LAUNCHER_SECONDS)}
