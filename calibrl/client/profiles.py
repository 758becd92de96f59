"""Named services: their URLs and keys, in a file that only its owner can read."""

import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, SecretStr, StringConstraints, TypeAdapter, ValidationError

from calibrl.client.errors import CalibrlError
from calibrl.schemas.fault_texts import fault_text
from calibrl.settings import ClientSettings

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"  # a key of TOML without quotes
LOCK_SECONDS = 10.0
OTHERS = 0o077  # mode bits of group and others
HEADER = "# Written by `calibrl profiles`. Contains keys: keep it readable by you only.\n"

# Profile of the option --profile. It has precedence over the environment.
chosen: ContextVar[str | None] = ContextVar("chosen", default=None)


class Profile(BaseModel):
    """URL and key of a service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    api_key: SecretStr


_FILE = TypeAdapter(dict[Annotated[str, StringConstraints(pattern=NAME)], Profile])


def path() -> Path:
    """Return the path of the file with all profiles."""
    return ClientSettings.read().config_home.expanduser() / "calibrl" / "profiles.toml"


def read_all() -> dict[str, Profile]:
    """Return all profiles by name.

    Raises:
        CalibrlError: the file is invalid, or others can read it.
    """
    file = path()
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if status.st_uid != os.geteuid():
                raise CalibrlError(f"{file} belongs to another user, who could redirect your requests: remove it")
            if status.st_mode & OTHERS:
                raise CalibrlError(f"{file} contains keys and others can read it: run `chmod 600 '{file}'`")
            return _FILE.validate_python(tomllib.load(opened))
    except FileNotFoundError:
        return {}
    except ValidationError as error:  # its own text would show the input: keys
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise CalibrlError(f"{file} can't be used: {where}: {fault_text(error.errors()[0])}") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CalibrlError(f"{file} can't be used: {error}") from None


def named(name: str) -> Profile:
    """Return a profile.

    Raises:
        CalibrlError: there is no profile of that name.
    """
    profiles = read_all()
    if name not in profiles:
        known = f"there are {', '.join(sorted(profiles))}" if profiles else "there are none yet"
        raise CalibrlError(f"there is no profile {name!r} ({known}): `calibrl profiles add {name} --url URL` makes it")
    return profiles[name]


@contextmanager
def changing() -> Iterator[dict[str, Profile]]:
    """Yield all profiles for changes, which are written at the end. A file lock serialises concurrent changes.

    Raises:
        CalibrlError: the file can't be read or written.
    """
    file = path()
    with ExitStack() as locked:
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            locked.enter_context(FileLock(file.with_suffix(".lock"), timeout=LOCK_SECONDS, mode=0o600))
        except OSError as error:  # Timeout is one
            raise CalibrlError(f"{file} can't be written: {error.strerror or error}") from None
        profiles = read_all()
        yield profiles
        _write(profiles)


def _write(profiles: dict[str, Profile]) -> None:
    tables = [
        f"\n[{name}]\nurl = {_quoted(one.url)}\napi_key = {_quoted(one.api_key.get_secret_value())}\n"
        for name, one in sorted(profiles.items())
    ]
    file = path().resolve()  # keeps a symbolic link to the file
    partial = file.with_suffix(".partial")
    try:
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600, exist_ok=False)
        partial.write_text(HEADER + "".join(tables), encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CalibrlError(f"{file} can't be written: {error.strerror or error}") from None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # JSON strings without surrogate escapes are valid TOML


def selected(data_dir: Path | None) -> Profile | None:
    """Return the profile that the command line or the environment names; None without one, or with `data_dir`.

    Raises:
        CalibrlError: there is none of that name, or something else names a service as well.
    """
    name = chosen.get()
    settings = ClientSettings.read()
    if name is not None and data_dir is not None:
        raise CalibrlError("--profile and --data name two services: remove one")
    if name is None and settings.profile is not None and data_dir is None:
        name = settings.profile
        if "api_url" in settings.model_fields_set:
            raise CalibrlError("CALIBRL_PROFILE and CALIBRL_API_URL name two services: unset one")
    return None if name is None else named(name)
