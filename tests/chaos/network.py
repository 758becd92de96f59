"""A separate network namespace for a worker, connected to this machine by one virtual cable that a fault can cut."""

import os
import subprocess
from types import TracebackType
from typing import Self

from tests.support.waiting import LIMIT_SECONDS

INSIDE, OUTSIDE = "{net}.2", "{net}.1"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=LIMIT_SECONDS)


class Namespace:
    """A network namespace, created on entry and removed on exit.

    `host`: this machine's address on the virtual cable. `index`: distinguishes the namespaces of this process.
    """

    def __init__(self, index: int = 0) -> None:
        number = os.getpid() % 32_768
        self.name = f"chaos{number}-{index}"
        self._net = f"10.{200 + number % 25 + 25 * index}.{number // 128}"
        self._cable = f"ch{number}-{index}"
        self.host = OUTSIDE.format(net=self._net)

    @property
    def command(self) -> list[str]:
        """Return a prefix that runs a command inside; `ip netns exec` would also change the mounts."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def __enter__(self) -> Self:
        far = f"{self._cable}x"
        try:
            _ip("netns", "add", self.name)
            _ip("link", "add", self._cable, "type", "veth", "peer", "name", far, "netns", self.name)
            _ip("addr", "add", f"{self.host}/24", "dev", self._cable)
            _ip("link", "set", self._cable, "up")
            _ip("-n", self.name, "addr", "add", f"{INSIDE.format(net=self._net)}/24", "dev", far)
            _ip("-n", self.name, "link", "set", far, "up")
            _ip("-n", self.name, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for command in (["link", "del", self._cable], ["netns", "del", self.name]):
            subprocess.run(["ip", *command], check=False, capture_output=True, timeout=LIMIT_SECONDS)

    def cut(self) -> None:
        """Cut the cable: packets in both directions are lost silently."""
        _ip("link", "set", self._cable, "down")

    def join(self) -> None:
        """Connect the cable again."""
        _ip("link", "set", self._cable, "up")


def possible() -> str | None:
    """Return None if this machine permits namespaces, else the reason why not."""
    try:
        with Namespace():
            return None
    except FileNotFoundError:
        return "no `ip` here: apt-get install iproute2"
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
