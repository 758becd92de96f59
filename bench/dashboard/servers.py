"""Servers compared with the dashboard: an almost empty Streamlit page, and TensorBoard."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from bench.serving import serving
from calibrl.stack.services import free_port

EMPTY = Path(__file__).with_name("empty_page.py")
STREAMLIT = [sys.executable, "-m", "streamlit", "run", str(EMPTY), "--server.headless", "true"]


def empty_page(folder: Path) -> AbstractContextManager[str]:
    """Run a Streamlit page with one chart during the block; yield its address."""
    port = free_port()
    command = [*STREAMLIT, "--server.address", "127.0.0.1", "--server.port", str(port)]
    return serving(command, f"http://127.0.0.1:{port}", "/_stcore/health", "the empty page", folder)


def tensorboard(environment: Path, logdir: Path, folder: Path) -> AbstractContextManager[str]:
    """Run TensorBoard on a folder of event files during the block; yield its address."""
    port = free_port()
    program = str(environment.absolute() / "bin" / "tensorboard")
    command = [program, "--logdir", str(logdir), "--host", "127.0.0.1", "--port", str(port)]
    return serving(command, f"http://127.0.0.1:{port}", "/", "TensorBoard", folder)


def tensorboard_version(environment: Path) -> str:
    """Return the version of TensorBoard in an environment.

    Raises:
        SystemExit: TensorBoard is not installed there.
    """
    python = environment / "bin" / "python"
    code = "from importlib.metadata import version; print(version('tensorboard'))"
    found = (
        subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60) if python.exists() else None
    )
    if found is None or found.returncode:
        raise SystemExit(f"no TensorBoard in {environment}: make bench-dashboard installs it")
    return found.stdout.strip()
