"""Addresses at which the machines of a job meet."""

import ipaddress
import socket
import struct
from contextlib import suppress
from fcntl import ioctl

from sqlalchemy import make_url

from jobs.settings import Settings

_SIOCGIFADDR = 0x8915  # ioctl of Linux: the IPv4 address of a network interface
_ANY_PORT = 9  # of a UDP socket that sends nothing


def own_address(settings: Settings) -> str:
    """Return the address of this machine for other machines: the setting, or that by which it reaches the database."""
    return settings.worker_address or _local_address(make_url(settings.need("database_url")).host or "localhost")


def is_loopback(address: str) -> bool:
    """Return True if only this machine can reach the address."""
    return ipaddress.ip_address(_resolve(address)).is_loopback


def free_port(address: str) -> int:
    """Return a TCP port of this machine that is free now."""
    with socket.socket() as server:
        server.bind((address, 0))
        return int(server.getsockname()[1])


def interface_variables(endpoint: str) -> dict[str, str]:
    """Return environment variables that make processes use the network interface of this machine that leads to an
    endpoint, "address:port". Without them, a host name that means 127.0.0.1 would be announced to other machines."""
    name = _interface(_local_address(endpoint.rpartition(":")[0]))
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"} if name else {}


def _local_address(host: str) -> str:
    """Return the IPv4 address by which this machine reaches a host. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((_resolve(host), _ANY_PORT))
        return str(probe.getsockname()[0])


def _resolve(host: str) -> str:
    return socket.gethostbyname(host)


def _interface(address: str) -> str | None:
    """Return the name of the network interface with an IPv4 address, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # the interface has no address
                found = ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None
