"""The process of a trainer: its inputs on this machine, config, arguments, environment, and the words for its end."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter
from pydantic_core import to_json

from calibrl.processes import children
from calibrl_core.verifiers.registry import Reward
from jobs.files import allowed_sources, datasets, hub_models
from jobs.lifecycle import Claim, Order
from jobs.settings import Settings, get_settings
from jobs.specs.reward_services import services_of, uses_services
from worker import addresses, gpus, multi_gpu
from worker.claim_lease import ClaimLease

CONFIG_FILE = "config.json"
SERVICES_FILE = "services.json"
_REWARDS = TypeAdapter(tuple[Reward, ...])
END_SECONDS = 10.0  # for a trainer to end by itself after one on another machine of the job: it reports its error
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 8_000


def bring_inputs(claim: Claim, lease: ClaimLease) -> bool:
    """Bring the job's data and models to this machine; return False if an order to end arrived meanwhile."""
    return all(lease.order is Order.CONTINUE for _ in _inputs(claim, lease))


def _inputs(claim: Claim, lease: ClaimLease) -> Iterator[None]:
    for file in claim.files:
        yield from datasets.fetch_to_machine(file)
    for model in claim.hub_models:
        yield from hub_models.fetch_to_machine(model, lambda message: lease.note("download", message))


def write_config(claim: Claim, folder: Path) -> Path:
    """Write the config of the trainer into a folder and return its path."""
    path, partial = folder / CONFIG_FILE, folder / f"{CONFIG_FILE}.partial"
    partial.write_bytes(to_json(claim.config, indent=2))
    partial.replace(path)
    return path


def command_line(claim: Claim, settings: Settings, config: Path) -> tuple[str, list[str]]:
    """Return the module of the trainer and its arguments. If rewards ask services, write these to a file beside the
    config, which only this user can read.
    """
    arguments = [str(config), "--run-dir", str(settings.run_dir(claim.job_id, claim.attempt))]
    bounds = allowed_sources.bounds()  # the trainer checks again: a link can change after this check
    arguments += [f"--root={root}" for root in bounds.roots] + [f"--closed={path}" for path in bounds.closed]
    if uses_services(_REWARDS.validate_python(claim.config.get("rewards", ()))):
        services = config.with_name(SERVICES_FILE)
        services_of(claim.project).write(services)
        arguments.append(f"--services={services}")
    arguments += [f"--cache={settings.data_dir / 'cache'}", f"--cache-bytes={settings.data_cache_bytes}"]
    return f"{settings.trainer}.{claim.kind}", arguments


def launch(claim: Claim, settings: Settings, config: Path, log: Path, endpoint: str | None) -> children.Process:
    """Start the launcher of the trainer's processes on this machine. `endpoint`: where it meets the launchers of other
    machines, if there are any."""
    module, arguments = command_line(claim, settings, config)
    environment = child_environment(claim.gpus) | multi_gpu.environment(settings.max_stop_grace_seconds)
    group = None
    if endpoint:
        environment = addresses.interface_variables(endpoint) | environment
        group = multi_gpu.MachineGroup(claim.machines, claim.rank, endpoint)
    command = multi_gpu.command(module, arguments, claim.processes, group)
    return children.start(command, log=log, env=environment)


def child_environment(indices: Sequence[int]) -> dict[str, str]:
    """Return the environment of a trainer: listed variables of this process, and only the GPUs of its lease."""
    # torch then counts GPUs through NVML: an import that asks for their number does not initialise CUDA.
    nvml = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    own = children.environment_without_secrets(get_settings().job_variables.split(","))
    return own | gpus.visible(indices) | nvml | {"PYTHONUNBUFFERED": "1"}


def describe_exit(status: int) -> str:
    """Describe a child's exit status."""
    if status >= 0:
        return f"Trainer exited with code {status}"
    return f"Trainer was killed by {signal.Signals(-status).name}"


def log_tail(path: Path, start: int = 0) -> str:
    """Return the last lines of a log after its first `start` bytes, with a heading; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:  # the outcome must be recorded all the same
        return ""
    return "\n".join(["", "Last log lines:", *text.splitlines()[-LOG_TAIL_LINES:]])


def out_of_memory_kills(root: Path = Path("/")) -> int:
    """Return how many processes of this control group (or machine) the kernel has killed for lack of memory.

    `root`: the folder that holds proc and sys.
    """
    groups = (root / "proc/self/cgroup").read_text().splitlines()
    group = next((line[3:] for line in groups if line.startswith("0::")), "/")
    counters = root / "sys/fs/cgroup" / group.lstrip("/") / "memory.events"
    counters = counters if counters.exists() else root / "proc/vmstat"
    rows = (line.split() for line in counters.read_text().splitlines())
    return next((int(count) for name, count in rows if name == "oom_kill"), 0)
