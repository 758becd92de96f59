"""Viewers without a browser: they speak Streamlit's protocol and request each tick as the browser does."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache

import httpx
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

OPEN_SECONDS = 30.0
READY_SECONDS = 120.0
IDLE_SECONDS = 0.2  # seconds to wait for a message between two checks of the stop flag


@cache
def session_cookies(dashboard_url: str, key: str) -> Mapping[str, str]:
    """Sign in with a key, once. Return the cookies of the session."""
    with httpx.Client(base_url=dashboard_url, trust_env=False) as browser:
        browser.post("/signin", data={"key": key})
        return dict(browser.cookies)


class Viewer(threading.Thread):
    """A browser tab. `ticks`: per tick, the time of its answer (`time.monotonic`) and its duration in seconds."""

    def __init__(self, dashboard_url: str, page: str, query: str, key: str) -> None:
        super().__init__(daemon=True)
        self._dashboard_url, self._key = dashboard_url, key
        self._page, self._query, self._script = page, query, ""
        self._every: dict[str, float] = {}  # seconds between a fragment's ticks, by its id
        self._due: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._stopped = threading.Event()
        self.ready = threading.Event()
        self.ticks: list[tuple[float, float]] = []

    def stop(self) -> None:
        """Leave the page."""
        self._stopped.set()
        self.join(OPEN_SECONDS)

    def run(self) -> None:
        cookies = session_cookies(self._dashboard_url, self._key)
        with connect(
            f"{self._dashboard_url.replace('http', 'ws', 1)}/_stcore/stream",
            subprotocols=["streamlit"],  # type: ignore[list-item]
            additional_headers={"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())},
            max_size=None,
            open_timeout=OPEN_SECONDS,
        ) as socket:
            socket.send(self._request())
            while not self._stopped.is_set():
                try:
                    data = socket.recv(timeout=self._pause())
                except TimeoutError:
                    data = None
                if isinstance(data, bytes):
                    self._take(ForwardMsg.FromString(data))
                for fragment in self._to_ask():
                    socket.send(self._request(fragment))

    def _request(self, fragment: str = "") -> bytes:
        message = BackMsg()
        asked = message.rerun_script
        asked.query_string, asked.page_name, asked.page_script_hash = self._query, self._page, self._script
        asked.fragment_id, asked.is_auto_rerun = fragment, bool(fragment)
        return bytes(message.SerializeToString())

    def _pause(self) -> float:
        next_due = min(self._due.values(), default=time.monotonic() + IDLE_SECONDS)
        return min(max(next_due - time.monotonic(), 0.0), IDLE_SECONDS)

    def _take(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self._script = message.new_session.page_script_hash
        elif kind == "auto_rerun":
            rerun = message.auto_rerun
            self._every[rerun.fragment_id] = rerun.interval
            self._due.setdefault(rerun.fragment_id, time.monotonic() + rerun.interval)
        elif kind == "script_finished":
            self.ready.set()
            now = time.monotonic()
            self.ticks += [(now, now - asked) for asked in self._asked.values()]
            self._asked.clear()

    def _to_ask(self) -> list[str]:
        """Return the fragments whose tick is due and whose last request was answered."""
        now = time.monotonic()
        due = [fragment for fragment, at in self._due.items() if at <= now]
        for fragment in due:
            self._due[fragment] = now + self._every[fragment]
        asked = [fragment for fragment in due if fragment not in self._asked]
        self._asked |= dict.fromkeys(asked, now)
        return asked


class Crowd:
    """Several viewers of one page: entered when each has received the whole page, left when all are closed."""

    def __init__(self, count: int, dashboard_url: str, page: str, query: str, key: str) -> None:
        self._viewers = [Viewer(dashboard_url, page, query, key) for _ in range(count)]

    def __enter__(self) -> Crowd:
        for viewer in self._viewers:  # one by one, like real users: otherwise all ticks would be at the same time
            viewer.start()
            if not viewer.ready.wait(READY_SECONDS):
                raise RuntimeError("a viewer was shown nothing")
        return self

    def __exit__(self, *_: object) -> None:
        for viewer in self._viewers:
            viewer.stop()

    def ticks_since(self, begin: float) -> Sequence[float]:
        """Return the seconds of every tick that was answered after `begin` (`time.monotonic`)."""
        return [seconds for viewer in self._viewers for at, seconds in list(viewer.ticks) if at >= begin]
