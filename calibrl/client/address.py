"""URL and key of the service."""

from pathlib import Path
from uuid import UUID

import httpx
from pydantic import BaseModel, Field, ValidationError

from calibrl.client import profiles
from calibrl.client.errors import CalibrlError
from calibrl.folder_lock import is_held
from calibrl.settings import ClientSettings

STACK_FILE = "stack.json"  # in the data folder of a running local stack


class Stack(BaseModel):
    """Content of the file that a running local stack writes."""

    api_url: str
    dashboard_url: str | None = None
    api_key: str = Field(repr=False)
    pid: int | None = None  # of `calibrl up`
    database_url: str | None = Field(None, repr=False)
    redis_url: str | None = Field(None, repr=False)


def read_stack(data_dir: Path) -> Stack | None:
    """Return the local stack on a folder; None if none is running.

    A killed stack leaves its file, and another process can use its port by now: only the lock shows whether it runs.

    Raises:
        CalibrlError: the file cannot be read.
    """
    path = data_dir / STACK_FILE
    try:
        content = path.read_bytes()
        return Stack.model_validate_json(content) if is_held(data_dir) else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise CalibrlError(f"{path} can't be used; stop its stack and start again with `calibrl up`") from error


def job_page_url(job_id: UUID, data_dir: Path | None) -> str | None:
    """Return the URL of a job's page in the dashboard of the local stack; None if another service is used.

    Raises:
        CalibrlError: the file of the stack cannot be read.
    """
    if profiles.selected(data_dir) is not None:
        return None
    settings = ClientSettings.read()
    stack = read_stack(data_dir or settings.data_dir)
    if stack is None or stack.dashboard_url is None or (data_dir is None and "api_url" in settings.model_fields_set):
        return None
    return f"{stack.dashboard_url.partition('/signin')[0]}/job?id={job_id}"


def http_address(url: str) -> httpx.URL:
    """Parse the URL of a service.

    Raises:
        CalibrlError: the URL cannot be that of a service.
    """
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    if address.scheme not in ("http", "https") or not address.host:
        raise CalibrlError(f"{url!r} is not the URL of a service: use one like http://127.0.0.1:8000")
    if address.userinfo:  # httpx would send it instead of the key; not shown: it can be a password
        raise CalibrlError("the URL of the service has a login in it: remove the login, the API key is enough")
    return address


def checked_key(key: str, fix: str) -> str:
    """Return the key. `fix` names the remedy in the error message.

    Raises:
        CalibrlError: the key has characters that an HTTP header cannot contain.
    """
    if not (key.isascii() and key.isprintable()):
        raise CalibrlError(f"the key has characters that an HTTP header cannot contain: {fix}")
    return key


def address_and_key(url: str | None, api_key: str | None, data_dir: Path | None) -> tuple[str, str]:
    """Return URL and key: the given ones, else those of the chosen profile, of the environment, or of the local stack.

    Raises:
        CalibrlError: there is no URL or no key, or two services are named.
    """
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
