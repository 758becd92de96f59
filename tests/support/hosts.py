"""Hosts on this machine: namespaces of the network that a bridge connects, each with its own host name. Needs root."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

NETWORK = f"10.213.{os.getpid() % 256}"  # two test sessions at the same time need different ones
GATEWAY = f"{NETWORK}.1"


def can_make_hosts() -> bool:
    """Return True if this process can make namespaces."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("hostname", "ip", "unshare"))):
        return False
    # In a container, root lacks the right to make them unless the container was started with it.
    return subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, timeout=60).returncode == 0


@contextmanager
def hosts(*names: str) -> Iterator[dict[str, list[str]]]:
    """Make hosts that reach each other and this one, which is GATEWAY. Yield the words before a command that is to run
    on each.

    The bridge has a namespace of its own: rules of this machine's firewall, such as Docker's, do not apply there.
    """
    switch = f"calibrl-{os.getpid()}"
    with ExitStack() as made:
        _space(switch, made)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        own = f"cv{os.getpid()}"
        _ip("link", "add", own, "type", "veth", "peer", "name", "root", "netns", switch)
        made.callback(_ip, "link", "del", own)  # at once: the kernel removes a namespace later
        _ip("-n", switch, "link", "set", "root", "master", "bridge", "up")
        _ip("addr", "add", f"{GATEWAY}/24", "dev", own)
        _ip("link", "set", own, "up")
        for number, name in enumerate(names, start=2):
            space = f"{switch}-{name}"
            _space(space, made)
            _ip("-n", switch, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", switch, "link", "set", f"to-{name}", "master", "bridge", "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
        yield {name: ["ip", "netns", "exec", f"{switch}-{name}", *_named(name)] for name in names}


def _named(host: str) -> list[str]:
    """Return the words before a command that is to see `host` as the name of its machine."""
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host]


def _space(name: str, made: ExitStack) -> None:
    _ip("netns", "add", name)
    made.callback(_ip, "netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=30)


@contextmanager
def forwarded(port: int) -> Iterator[int]:
    """Yield a port of GATEWAY that leads to a port of 127.0.0.1."""
    with socket.create_server((GATEWAY, 0)) as server:
        threading.Thread(target=_accept, args=(server, port), daemon=True).start()
        yield server.getsockname()[1]


def _accept(server: socket.socket, port: int) -> None:
    while True:
        try:
            outer, _ = server.accept()
        except OSError:  # closed
            return
        threading.Thread(target=_connect, args=(outer, port), daemon=True).start()


def _connect(outer: socket.socket, port: int) -> None:
    with outer, socket.create_connection(("127.0.0.1", port)) as inner:
        back = threading.Thread(target=_copy, args=(inner, outer), daemon=True)
        back.start()
        _copy(outer, inner)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until one side has closed, then end both directions."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
