"""A hub of models and datasets on a local port, with the routes, headers and errors of the Hugging Face hub that
downloads use."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = ".safetensors"  # these files are stored elsewhere: the hub redirects to them


@dataclass
class FakeHub:
    """The hub's content, and what was asked of it. `tokens`: those with access; None: anybody has.
    `cut`: by file, the bytes after which the next answers end too early, one per answer. `datasets`: files by name of
    the dataset; `held`: requests for them wait for it.
    """

    model: str
    commit: str
    files: dict[str, bytes]
    tokens: set[str] | None = None
    cut: dict[str, list[int]] = field(default_factory=dict)
    datasets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    held: threading.Event | None = None
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    store: str = ""  # another host: it must not get the token

    def ranges(self, name: str) -> list[str | None]:
        """The ranges in which a file was read, in order."""
        return [headers.get("range") for path, headers in self.asked if path == f"/store/{self.commit}/{name}"]


@contextmanager
def serving_hub(model: str, files: dict[str, bytes], **settings: Any) -> Iterator[FakeHub]:
    """Serve one model, with its branch `main`."""
    hub = FakeHub(model, sha256(repr(sorted(files.items())).encode()).hexdigest()[:40], files, **settings)
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        hub.url, hub.store = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def folder_files(folder: Path) -> dict[str, bytes]:
    """Return the content of a saved model by file name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.asked.append((path, {name.lower(): value for name, value in self.headers.items()}))
        dataset = next((name for name in self.hub.datasets if f"datasets/{name}" in path), None)
        if dataset is not None:
            self._of_dataset(path, dataset)
        elif path.startswith(f"/store/{self.hub.commit}/"):
            self._content(path.rpartition("/")[2])
        elif path.startswith(f"/api/models/{self.hub.model}/revision/"):
            self._listing(path.rpartition("/")[2], "blobs" in parse_qs(url.query))
        elif path.startswith(f"/{self.hub.model}/resolve/"):
            self._resolve(*path.split("/")[4:6])
        else:
            self._error(401, "RepoNotFound")

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _listing(self, revision: str, blobs: bool) -> None:
        if revision not in ("main", self.hub.commit):
            return self._error(404, "RevisionNotFound")
        entries = [{"rfilename": name, **(_blob(name, text) if blobs else {})} for name, text in self.hub.files.items()]
        body = json.dumps({"id": self.hub.model, "sha": self.hub.commit, "siblings": entries}).encode()
        return self._answer(200, body, {"Content-Type": "application/json"})

    def _resolve(self, revision: str, name: str) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.hub.tokens is not None and given not in self.hub.tokens:
            return self._error(403 if given else 401, "GatedRepo")
        if revision not in ("main", self.hub.commit):
            return self._error(404, "RevisionNotFound")
        if name not in self.hub.files:
            return self._error(404, "EntryNotFound")
        text = self.hub.files[name]
        known = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{sha256(text).hexdigest()}"'}
        if name.endswith(LARGE):
            linked = {"X-Linked-Etag": known["ETag"], "X-Linked-Size": str(len(text))}
            return self._answer(
                302, b"", known | linked | {"Location": f"{self.hub.store}/store/{self.hub.commit}/{name}"}
            )
        return self._answer(200, text, known)

    def _of_dataset(self, path: str, name: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.held is not None:
            self.hub.held.wait(60)
        files = self.hub.datasets[name]
        entries = [{"type": "file", "path": file, "size": len(text), "oid": "0" * 40} for file, text in files.items()]
        kind, _, rest = path.partition(f"datasets/{name}")[2].removeprefix("/").partition("/")
        if kind in ("", "revision"):
            siblings = [{"rfilename": file} for file in files]
            facts: Any = {"id": name, "sha": self.hub.commit, "siblings": siblings, "private": False, "tags": []}
        elif kind == "tree":
            facts = entries
        elif kind == "paths-info":
            facts = [entry for entry in entries if str(entry["path"]).encode() in body]
        elif (file := rest.partition("/")[2]) in files:
            return self._text(files[file], {"X-Repo-Commit": self.hub.commit})
        else:
            return self._error(404, "EntryNotFound")
        return self._answer(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def _content(self, name: str) -> None:
        cuts = self.hub.cut.get(name)
        self._text(self.hub.files[name], {}, cuts.pop(0) if cuts and self.command == "GET" else None)

    def _text(self, text: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        begin = 0
        status, headers = 200, {"ETag": f'"{sha256(text).hexdigest()}"', **headers}
        if (asked := self.headers.get("Range")) is not None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last or len(text) - 1), len(text) - 1)
            status, headers["Content-Range"] = 206, f"bytes {begin}-{end}/{len(text)}"
            text = text[begin : end + 1]
        self._answer(status, text, headers, cut)

    def _error(self, status: int, code: str) -> None:
        self._answer(status, b"", {"X-Error-Code": code})

    def _answer(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        self.close_connection = cut is not None


def _blob(name: str, text: bytes) -> dict[str, Any]:
    large = {"lfs": {"sha256": sha256(text).hexdigest(), "size": len(text), "pointerSize": 134}}
    return {"size": len(text), "blobId": sha256(text).hexdigest()[:40], **(large if name.endswith(LARGE) else {})}
