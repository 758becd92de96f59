"""The dashboard on a long run with twenty viewers: time to the first chart, time per tick, memory.

    python -m bench.dashboard
    python -m bench.dashboard --quick      # a smoke test of two minutes; do not use its figures

This process starts the services. Its child process `bench.dashboard.measures` runs the measures; it has the addresses
of the services in its environment.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from bench import report
from bench.dashboard import servers
from bench.stack import run_with, services, stack
from calibrl.client.address import read_stack

PACKAGES = ("streamlit", "plotly", "fastapi", "sqlalchemy")
SETTINGS = {
    "CALIBRL_REQUESTS_PER_SECOND": "100000",  # all clients share one key
    "CALIBRL_REQUESTS_AT_ONCE": "100000",
    "CALIBRL_LEASE_SECONDS": "7200",  # no worker renews the lease of the viewed job
    "CALIBRL_QUICK_STARTS": "false",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smoke test; writes results only with --results")
    parser.add_argument("--tensorboard", type=Path, default=Path(".venv-mlflow"), help="environment with TensorBoard")
    parser.add_argument("--results", type=Path, help="folder of the JSON file")
    options = parser.parse_args()
    results = options.results or (None if options.quick else report.RESULTS)
    console = Console()
    peer = servers.tensorboard_version(options.tensorboard)
    console.print(f"{report.circumstances(PACKAGES)}, tensorboard {peer}", soft_wrap=True)
    if warning := report.load_warning():
        console.print(warning, style="yellow")
    arguments = ["--tensorboard", str(options.tensorboard), *(["--quick"] if options.quick else [])]
    arguments += ["--results", str(results)] if results else []
    with tempfile.TemporaryDirectory() as folder, services(Path(folder)) as found:
        settings = SETTINGS | found
        data = Path(settings["CALIBRL_DATA_DIR"])
        with stack(data, settings, dashboard=True) as client:
            client.drain(client.workers()[0].name)  # the measures register their own machine
            running = read_stack(data)
            assert running is not None and running.dashboard_url is not None
            arguments += ["--dashboard-url", running.dashboard_url]
            sys.exit(run_with(settings | {"CALIBRL_API_URL": client.url}, "bench.dashboard.measures", arguments))


if __name__ == "__main__":
    main()
