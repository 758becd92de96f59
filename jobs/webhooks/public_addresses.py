"""Where messages may be sent: to addresses that are public, looked up within a time that is bounded."""

import ipaddress
import socket
import threading
import time
from concurrent.futures import Future

import httpx

from jobs.settings import get_settings

LOOKUP_SECONDS = 5.0  # for whoever waits for an answer; a message has its own deadline
LOOKUPS = 64  # at once: one that hangs keeps its thread for as long as the system's resolver likes

_HIDDEN = tuple(  # what leads to private addresses, though `ipaddress` may call it global
    ipaddress.ip_network(text)
    for text in (
        "192.88.99.0/24",  # the old way to relays of 6to4
        "fec0::/10",  # site-local: private, before fc00::/7
        "::/96",  # "IPv4-compatible"
        "::ffff:0:0:0/96",  # "IPv4-translated"
        "64:ff9b:1::/48",  # NAT64 of a network's own
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_free = threading.BoundedSemaphore(LOOKUPS)


class Refused(Exception):
    """An address that messages may not be sent to; the message says why."""


def problem(url: str) -> str | None:
    """Why messages may not be sent to an address, None where they may: what it leads to is looked up."""
    try:
        public_address(httpx.URL(url), LOOKUP_SECONDS)
    except (Refused, httpx.InvalidURL) as error:
        return str(error)
    return None


def public_address(url: httpx.URL, seconds: float) -> str:
    """An address of the URL's host that messages may go to, found within so many seconds.

    Raises:
        Refused: there is none.
    """
    private_too = get_settings().webhooks_to_private
    if url.scheme != "https" and not private_too:
        raise Refused("the address must begin with https://")
    addresses = _look_up(url.host, url.port or 443, seconds)
    # All of them: which one is connected to must not depend on luck.
    if not private_too and not all(is_public(address) for address in addresses):
        raise Refused(f"{url.host} leads to an address that is not public; CALIBRL_WEBHOOKS_TO_PRIVATE allows it")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address is one of the internet; one that stands for an IPv4 address is as public as that is."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if any(parsed in network for network in _HIDDEN):
        return False
    inner = _embedded(parsed)
    return parsed.is_global and not parsed.is_multicast and (inner is None or is_public(str(inner)))


def _embedded(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour


def _look_up(host: str, port: int, seconds: float) -> list[str]:
    """In a thread that is left behind where the time is up: the system's resolver can't be told to stop, and a pool's
    threads would be waited for when the process ends."""
    until = time.monotonic() + seconds
    if not _free.acquire(timeout=seconds):
        raise Refused(f"{host} can't be looked up: too many other names are")
    answer: Future[list[str]] = Future()
    threading.Thread(target=_resolve, args=(answer, host, port), name="lookup", daemon=True).start()
    try:
        return answer.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        raise Refused(f"{host} can't be looked up: no answer within {seconds:.0f} s") from None
    except (OSError, UnicodeError) as error:
        raise Refused(f"{host} can't be looked up: {error}") from None


def _resolve(answer: Future[list[str]], host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        answer.set_result([str(entry[4][0]) for entry in found])
    except Exception as error:  # the edge of a thread: whoever waits for it gets the error
        answer.set_exception(error)
    finally:
        _free.release()
