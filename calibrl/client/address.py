"""Where the service is, and with which key it is asked."""

from pathlib import Path

import httpx
from pydantic import BaseModel, Field, ValidationError

from calibrl.client import profiles
from calibrl.client.errors import CalibrlError
from calibrl.folder_lock import is_held
from calibrl.settings import ClientSettings

STACK_FILE = "stack.json"  # in the data folder of a running local stack


class Stack(BaseModel):
    """What a running local stack says of itself."""

    api_url: str
    dashboard_url: str | None = None
    api_key: str = Field(repr=False)


def read_stack(data_dir: Path) -> Stack | None:
    """The local stack on that folder, None where none runs. Raises CalibrlError for a file that can't be read.

    A killed stack leaves its file behind, and somebody else may listen at its port by now: only its lock tells.
    """
    path = data_dir / STACK_FILE
    try:
        content = path.read_bytes()
        return Stack.model_validate_json(content) if is_held(data_dir) else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise CalibrlError(f"{path} can't be used; stop its stack and start again with `calibrl up`") from error


def http_address(url: str) -> httpx.URL:
    """An address as text, read. Raises CalibrlError where no service can be there."""
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    if address.scheme not in ("http", "https") or not address.host:
        raise CalibrlError(f"{url!r} is no address of a service: give one like http://127.0.0.1:8000")
    if address.userinfo:  # it would be sent in the key's place; not shown, as it may be a password
        raise CalibrlError("the service's address has a login in it: leave that out, the API key is all that is asked")
    return address


def checked_key(key: str, fix: str) -> str:
    """The key. Raises CalibrlError, with what is to be done, where no HTTP header can carry it."""
    if not (key.isascii() and key.isprintable()):
        raise CalibrlError(f"the key has characters that no HTTP header can carry: {fix}")
    return key


def address_and_key(url: str | None, api_key: str | None, data_dir: Path | None) -> tuple[str, str]:
    """Where to send requests and with which key: what was given, else the chosen profile's, else the environment's,
    else the local stack's."""
    if url is None and (profile := profiles.selected(data_dir)) is not None:
        return profile.url, api_key or profile.api_key.get_secret_value()
    settings = ClientSettings.read()
    stack = read_stack(data_dir or settings.data_dir)
    if url is None and data_dir is not None:
        if stack is None:
            raise CalibrlError(f"no stack is running on {data_dir}: start one with `calibrl up --data {data_dir}`")
        return stack.api_url, api_key or stack.api_key
    if url is None:
        url = stack.api_url if stack and "api_url" not in settings.model_fields_set else settings.api_url
    http_address(url)
    url = url.rstrip("/")
    if api_key is None and settings.api_key is not None:
        api_key = settings.api_key.get_secret_value()
    if api_key is None and stack and stack.api_url == url:  # a stack's key goes to no other address
        api_key = stack.api_key
    if api_key is None:
        raise CalibrlError(
            f"no local stack is running (start one with `calibrl up`), and no key for {url} is set (CALIBRL_API_KEY)"
        )
    return url, api_key
