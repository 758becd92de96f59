"""A service over HTTP in a thread of the test, which answers as a function says and keeps what it was asked."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]  # status, JSON or bytes, headers


@dataclass
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    content: bytes
    body: Any = field(init=False)

    def __post_init__(self) -> None:
        self.body = json.loads(self.content)


@dataclass
class Service:
    """A running service."""

    url: str
    asked: list[Asked]

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")


@contextmanager
def serving(answer: Callable[[Asked], Answer]) -> Iterator[Service]:
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked.append(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, self.rfile.read(length)))
            status, content, *headers = answer(asked[-1])
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (headers[0] if headers else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client has given up
                self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield Service(f"http://127.0.0.1:{server.server_port}", asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
