"""The Hugging Face hub by HTTP: the commit of a model, the files of it that a trainer reads, and their content.

Code, pickles and adapters of a model are not among these files. Every request has limits of time and bytes.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, ValidationError

from calibrl.schemas.fault_texts import fault_text
from jobs.errors import ServiceError
from jobs.settings import get_settings

COMMIT = re.compile(r"[0-9a-f]{40}")
MAX_FILES = 1000
MAX_LIST_BYTES = 2**24  # of an answer that lists the files of a model
MAX_CONFIG_BYTES = 2**24  # of a config.json or an index of weights
READ_SECONDS = 30.0  # for one small file, all bytes together
STALL_SECONDS = httpx.Timeout(30.0, connect=10.0)  # between two chunks of a download
CHUNK_BYTES = 2**20
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# An adapter_config.json would let transformers load the base model that it names.
_NEVER = ("adapter_config.json",)
_FILE = re.compile(r"(additional_chat_templates/)?[A-Za-z0-9_][\w.+-]*")
_TEXTS = (".json", ".jinja", ".txt", ".model", ".tiktoken")


class HubRefusal(ServiceError):
    """The hub has no such model, revision or file, or the project has no access, or the model cannot be used."""

    status = 422
    code = "hub-refusal"
    title = "Model of the hub refused"


class HubUnavailable(ServiceError):
    """The hub cannot be reached, or answers too slowly."""

    status = 503
    code = "hub-away"
    title = "Hub unavailable"


@dataclass(frozen=True)
class HubFile:
    """A file of a commit. `sha256` is None for small files: the hub knows it for large ones only."""

    name: str
    bytes: int
    sha256: str | None


@dataclass(frozen=True)
class HubCommit:
    """A commit of a model, with the files that a trainer reads."""

    model: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)


class _Large(BaseModel):
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Entry(BaseModel):
    rfilename: str
    size: int = Field(ge=0)
    lfs: _Large | None = None


class _Listing(BaseModel):
    sha: str = Field(pattern=f"^{COMMIT.pattern}$")
    siblings: list[_Entry]


class _Index(BaseModel):
    weight_map: dict[str, str]


class HubConnection:
    """Connection to the hub with the token of a project, if it has one. A context manager.

    All methods raise HubRefusal and HubUnavailable.
    """

    def __init__(self, project: str) -> None:
        settings = get_settings()
        token = settings.hub_tokens.get(project)
        self._project = project
        self._url = settings.hub_url
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        # A redirect to another host loses the header with the token.
        self._http = httpx.Client(base_url=self._url, headers=headers, timeout=STALL_SECONDS, follow_redirects=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def commit(self, model: str, revision: str | None) -> HubCommit:
        """Return the commit of a revision (a branch, a tag or a commit; None: main) with its files.

        Raises:
            HubRefusal: the hub does not answer, or the model is not in the format of transformers, or its weights are
                incomplete.
        """
        path = f"/api/models/{model}/revision/{quote(revision or 'main', safe='')}"
        with self._stream(model, path, params={"blobs": "true"}) as answer:
            text = self._body(model, answer, MAX_LIST_BYTES)
        try:
            listing = _Listing.model_validate_json(text)
        except ValidationError as error:
            raise HubRefusal(f"{model}: the hub's list of its files cannot be read: {_first(error)}") from error
        found = {entry.rfilename: entry for entry in listing.siblings}
        if CONFIG not in found:
            raise HubRefusal(f"{model} has no {CONFIG}: only models in the format of transformers can be used")
        weights = self._weights(model, listing.sha, found.keys())
        files = [entry for name, entry in found.items() if name in weights or _is_text(name)]
        if missing := sorted(weights - found.keys()):
            raise HubRefusal(f"{model} has no file {missing[0]}: use a model with weights as safetensors")
        if len(files) > MAX_FILES:
            raise HubRefusal(f"{model} has {len(files):,} files; at most {MAX_FILES:,} are downloaded")
        sizes = (HubFile(one.rfilename, one.size, one.lfs.sha256 if one.lfs else None) for one in files)
        return HubCommit(model, listing.sha, tuple(sorted(sizes, key=lambda one: (one.bytes, one.name))))

    def _weights(self, model: str, commit: str, names: Any) -> set[str]:
        if INDEX not in names:
            return {WEIGHTS}
        try:
            index = _Index.model_validate_json(self.read(model, commit, INDEX, MAX_CONFIG_BYTES))
        except ValidationError as error:
            raise HubRefusal(f"{model}: its {INDEX} cannot be read: {_first(error)}") from error
        weights = set(index.weight_map.values())
        if wrong := sorted(name for name in weights if not _FILE.fullmatch(name)):
            raise HubRefusal(f"{model}: its {INDEX} names {wrong[0]!r}, which is not a file of its folder")
        return weights

    def read(self, model: str, commit: str, name: str, limit: int, *, first: int | None = None) -> bytes:
        """Return the content of a small file, at most `limit` bytes. `first`: only that many bytes from its start."""
        headers = {} if first is None else {"Range": f"bytes=0-{first - 1}", "Accept-Encoding": "identity"}
        with self._stream(model, _path(model, commit, name), headers=headers) as answer:
            return self._body(model, answer, limit if first is None else first, cut=first is not None)

    @contextmanager
    def open(self, model: str, commit: str, name: str, start: int) -> Iterator[tuple[bool, Iterator[bytes]]]:
        """Yield the chunks of a file from byte `start`, and before them False if they begin at byte 0 instead."""
        # Not compressed on the way: a range counts the bytes of the file.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with self._stream(model, _path(model, commit, name), headers=headers) as answer:
            continues = answer.status_code == httpx.codes.PARTIAL_CONTENT
            yield continues, answer.iter_bytes()  # chunks as received: a connection that ends early loses none

    @contextmanager
    def _stream(self, model: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        try:
            with self._http.stream("GET", path, **request) as answer:
                self._check(model, answer)
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HubUnavailable(f"The hub {self._url} cannot be used: {type(error).__name__}: {error}") from error

    def _check(self, model: str, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        status, code = answer.status_code, answer.headers.get("X-Error-Code", "")
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
            raise HubUnavailable(f"The hub {self._url} answers {status} for {model}: try again later.")
        if code == "RevisionNotFound":
            raise HubRefusal(f"{model} has no such revision on the hub")
        if code == "EntryNotFound":
            raise HubRefusal(f"{model}: a file is missing on the hub")
        reason = f"{model} does not exist on the hub, or needs a token (HTTP {status}): project {self._project!r} has"
        if self._project in get_settings().hub_tokens:
            raise HubRefusal(f"{reason} one in CALIBRL_HUB_TOKENS; accept the model's terms with the account of it")
        raise HubRefusal(f"{reason} none; set it in CALIBRL_HUB_TOKENS")

    def _body(self, model: str, answer: httpx.Response, limit: int, *, cut: bool = False) -> bytes:
        """Return the body, or its first `limit` bytes if `cut`."""
        deadline, body = time.monotonic() + READ_SECONDS, bytearray()
        for chunk in answer.iter_bytes(CHUNK_BYTES):
            body += chunk
            if len(body) >= limit and cut:
                return bytes(body[:limit])
            if len(body) > limit:
                raise HubRefusal(f"{model}: {answer.url.path} has more than {limit:,} bytes")
            if time.monotonic() > deadline:
                raise HubUnavailable(f"The hub {self._url} needs more than {READ_SECONDS:.0f} s for {answer.url.path}.")
        return bytes(body)


def _path(model: str, commit: str, name: str) -> str:
    return f"/{model}/resolve/{commit}/{quote(name)}"


def _is_text(name: str) -> bool:
    return bool(_FILE.fullmatch(name)) and name.endswith(_TEXTS) and name not in _NEVER


def _first(error: ValidationError) -> str:
    first = error.errors(include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {fault_text(first)}"
