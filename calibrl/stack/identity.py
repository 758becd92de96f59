"""The keys and ports of a local stack: kept in its data folder, so that addresses and sign-ins outlive a restart."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = "identity.json"


def _new_key() -> str:
    return "calibrl_" + secrets.token_urlsafe(32)


def _new_token() -> str:
    return secrets.token_urlsafe(24)


@dataclass
class Identity:
    """The key of the administrator, the token of the dashboard's sign-in, and the ports of the last start (0: none)."""

    api_key: str = field(default_factory=_new_key)
    dashboard_token: str = field(default_factory=_new_token)
    api_port: int = 0
    dashboard_port: int = 0

    @classmethod
    def read(cls, folder: Path) -> "Identity":
        """Return the identity of a data folder, or a new one if the folder has none that can be used."""
        try:
            return cls(**json.loads((folder / FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, folder: Path) -> None:
        """Store the identity, readable by this user only."""
        write_private(folder / FILE, asdict(self))


def write_private(path: Path, content: Mapping[str, object]) -> None:
    """Replace a JSON file as a whole. Only this user can read it."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(content))
    partial.replace(path)
