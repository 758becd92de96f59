"""Addresses of the public internet, and lookups of hosts with a time limit."""

import ipaddress
import socket
import threading
import time
from concurrent.futures import Future

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


def look_up(host: str, port: int, seconds: float) -> list[str]:
    """Return the addresses of a host.

    The lookup is in a thread that is abandoned at the time limit: the system's resolver cannot be stopped, and the
    threads of a pool would delay the end of the process.

    Raises:
        Refused: the host is not found within `seconds`.
    """
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
