"""Start and stop of a peer's server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from calibrl.processes import children
from calibrl.stack.services import wait_until

OURS = ("PYTHONPATH", "VIRTUAL_ENV")  # variables through which a peer would import our packages


@contextmanager
def serving(
    command: Sequence[str], url: str, health: str, name: str, folder: Path, settings: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a server in a folder until the block ends; yield its address once `health` answers."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    env = {name: value for name, value in os.environ.items() if name not in OURS} | dict(settings or {})
    process = children.start(command, log=log, env=env, cwd=folder)
    try:
        wait_until(lambda: _answers(url + health), process, name, log)
        yield url
    finally:
        children.stop(process, 10.0)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False
