"""Checks that a URL leads to public addresses, with a time limit for the lookup."""

import ipaddress
import socket
import threading
import time
from concurrent.futures import Future

import httpx

from jobs.settings import get_settings

LOOKUP_SECONDS = 5.0  # for requests; a message has its own deadline
MAX_LOOKUPS = 64  # at the same time: a lookup that hangs keeps its thread until the resolver of the system gives up

_HIDDEN = tuple(  # networks that lead to private addresses, although `ipaddress` may call them global
    ipaddress.ip_network(text)
    for text in (
        "192.88.99.0/24",  # relays of 6to4, deprecated
        "fec0::/10",  # site-local: private, before fc00::/7
        "::/96",  # "IPv4-compatible"
        "::ffff:0:0:0/96",  # "IPv4-translated"
        "64:ff9b:1::/48",  # local-use NAT64
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_free = threading.BoundedSemaphore(MAX_LOOKUPS)


class Refused(Exception):
    """An address that messages must not be sent to. The message has the reason."""


def problem(url: str) -> str | None:
    """Return why messages cannot be sent to a URL, or None if they can. Looks up its host."""
    try:
        public_address(httpx.URL(url), LOOKUP_SECONDS)
    except (Refused, httpx.InvalidURL) as error:
        return str(error)
    return None


def public_address(url: httpx.URL, seconds: float) -> str:
    """Return an address of the URL's host to which messages can be sent, found within `seconds`.

    Raises:
        Refused: there is none.
    """
    private_too = get_settings().webhooks_to_private
    if url.scheme != "https" and not private_too:
        raise Refused("the URL must begin with https://")
    addresses = _look_up(url.host, url.port or 443, seconds)
    # Check all addresses: the connection can use any of them.
    if not private_too and not all(is_public(address) for address in addresses):
        raise Refused(f"{url.host} has an address that is not public; CALIBRL_WEBHOOKS_TO_PRIVATE=true allows it")
    return addresses[0]


def is_public(address: str) -> bool:
    """Return True for an address of the public internet. An address that embeds an IPv4 address is as public as that
    one: versions of Python disagree on whether the outer address is global."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if any(parsed in network for network in _HIDDEN):
        return False
    inner = _embedded(parsed)
    return is_public(str(inner)) if inner is not None else parsed.is_global and not parsed.is_multicast


def _embedded(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour


def _look_up(host: str, port: int, seconds: float) -> list[str]:
    """Look up a host in a thread that is abandoned at the time limit: the system's resolver cannot be stopped, and
    the threads of a pool would delay the end of the process."""
    until = time.monotonic() + seconds
    if not _free.acquire(timeout=seconds):
        raise Refused(f"the lookup of {host} failed: too many lookups at the same time")
    answer: Future[list[str]] = Future()
    threading.Thread(target=_resolve, args=(answer, host, port), name="lookup", daemon=True).start()
    try:
        return answer.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        raise Refused(f"the lookup of {host} failed: no answer within {seconds:.0f} s") from None
    except (OSError, UnicodeError) as error:
        raise Refused(f"the lookup of {host} failed: {error}") from None


def _resolve(answer: Future[list[str]], host: str, port: int) -> None:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        answer.set_result([str(entry[4][0]) for entry in addresses])
    except Exception as error:  # end of a thread: the waiting thread gets the error
        answer.set_exception(error)
    finally:
        _free.release()
