"""`make dev`: the local stack on a seeded database. API and dashboard reload on a change, jobs run in the fake trainer.

Everything is in `.calibrl/dev` of the checkout, or in the folder that is its argument; remove it to start again.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from alembic import command
from alembic.config import Config

from calibrl.processes.children import Process
from calibrl.stack.local import LocalStack, StackError
from calibrl.stack.services import Postgres, Valkey, lock_folder
from jobs import db
from tests.support import ROOT
from tests.support.seed import seed

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".calibrl" / "dev")
WATCHED = ("api", "calibrl", "calibrl_core", "jobs")
POLL_SECONDS = 1.0


class ReloadingStack(LocalStack):
    """The local stack, whose API and dashboard reload on a change of the code."""

    def _run(self, name: str, command: Sequence[str], env: dict[str, str]) -> Process:
        reload = {
            "UVICORN_RELOAD": "true",
            "UVICORN_RELOAD_DIRS": os.pathsep.join(str(ROOT / folder) for folder in WATCHED),
            "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "auto",
            "STREAMLIT_SERVER_RUN_ON_SAVE": "true",
        }
        return super()._run(name, command, env | reload)


def main() -> int:
    """Run until Ctrl-C; return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logs = FOLDER / "logs"
    try:
        FOLDER.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (
            Valkey(FOLDER / "valkey", logs / "valkey.log") as valkey,
            Postgres(FOLDER / "postgres", logs / "postgres.log", durable=False) as postgres,
        ):
            _set_environment(postgres.url, valkey.url)
            _fill()
            with ReloadingStack(FOLDER / "stack") as stack:
                sys.stdout.write(f"Dashboard  {stack.dashboard_url}\nAPI        {stack.api_url}/docs\n")
                sys.stdout.write(f"Logs       {FOLDER}/stack/logs\nStop       Ctrl-C\n")
                sys.stdout.flush()
                while True:
                    stack.check()
                    time.sleep(POLL_SECONDS)
    except StackError as error:
        sys.stderr.write(f"make dev: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 0


def _set_environment(database_url: str, redis_url: str) -> None:
    os.environ.update(
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        CALIBRL_DATA_DIR=str(FOLDER / "stack"),
        CALIBRL_ALLOWED_ROOTS="/",
        CALIBRL_TRAINER="tests.support.fake_trainer",
    )
    for name in ("CALIBRL_PROFILE", "CALIBRL_API_URL", "CALIBRL_API_KEY", "CALIBRL_STORAGE"):
        os.environ.pop(name, None)


def _fill() -> None:
    """Migrate the database; seed it if that was not done before."""
    command.upgrade(Config(ROOT / "alembic.ini"), "head")
    marker = FOLDER / "seeded"
    if not marker.exists():
        began = time.monotonic()
        lock_folder(FOLDER / "stack").release()  # makes the folder, and checks that no stack uses it
        seed()
        marker.touch()
        sys.stdout.write(f"Seeded the database in {time.monotonic() - began:.1f} s\n")
    db.dispose()


if __name__ == "__main__":
    sys.exit(main())
