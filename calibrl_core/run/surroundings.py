"""Surroundings of a run: version of the code, packages, hardware. With the digests of its data and model and with its
config they say why a repeated run can differ.
"""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
GIT_SECONDS = 10.0  # limit of a call of git
CPU_FACTS, MODEL_NAME = Path("/proc/cpuinfo"), "model name"


def run_record(digests: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a run, for its `start` event. `digests`: of its data and its models, by field of the
    config.
    """
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    host = os.uname()  # platform.platform() starts a process
    system = f"{host.sysname} {host.release} {host.machine}"
    hardware = {"system": system, "processor": processor(), "cpus": os.cpu_count(), "gpus": gpus}
    return {
        "code": code_version(ROOT),
        "python": platform.python_version(),
        "packages": packages(),
        "hardware": hardware | {"threads": torch.get_num_threads()},
        "digests": dict(digests),
    }


def code_version(root: Path) -> dict[str, Any]:
    """Return the version of the package; of a git checkout also its commit and if files differ from it."""
    try:
        version = metadata.version("calibrl")
    except metadata.PackageNotFoundError:
        version = None
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"version": version, "commit": commit, "dirty": None if changed is None else bool(changed)}


def packages() -> dict[str, str]:
    """Return the versions of all installed distributions by name."""
    found = {one.metadata["Name"]: one.version for one in metadata.distributions() if one.metadata["Name"]}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(MODEL_NAME))
    return next(named, "") or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    """Return the output of git; None if git is missing, fails or takes too long."""
    command = ["git", "-C", str(root), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
