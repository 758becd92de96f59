"""Sending messages to webhooks: signed as Standard Webhooks has it, to public addresses only, again where it fails."""

import base64
import hashlib
import hmac
import ipaddress
import json
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from jobs.db import session_scope
from jobs.repository import webhooks
from jobs.settings import get_settings

PREFIX = "whsec_"
SECRET_BYTES = 32
# Seconds from one try to the next; after the last of them the message is given up.
AGAIN = (10, 60, 300, 1800, 7200, 18_000, 36_000)
TIMEOUT = httpx.Timeout(10.0, connect=5.0)
AT_ONCE = 20  # messages taken together


class Refused(Exception):
    """An address that messages may not be sent to; the message says why."""


@dataclass(frozen=True)
class Message:
    """A message as it is sent, and how often that was tried."""

    id: UUID
    url: str
    secret: str
    body: bytes
    attempts: int


def new_secret() -> str:
    """A secret to sign with."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signature(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64: https://www.standardwebhooks.com."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def problem(url: str) -> str | None:
    """Why messages may not be sent to an address, None where they may: what it leads to is looked up."""
    try:
        _public_address(httpx.URL(url))
    except (Refused, httpx.InvalidURL) as error:
        return str(error)
    return None


def send_due() -> int:
    """Send what is due: how many messages there were. No transaction is open while the network is waited for."""
    with session_scope() as session:
        due = [_message(delivery, webhook) for delivery, webhook in webhooks.take_due(session, AT_ONCE)]
    for message in due:
        delivered, response = send(message)
        again = None if delivered or message.attempts >= len(AGAIN) else float(AGAIN[message.attempts])
        with session_scope() as session:
            webhooks.tried(session, message.id, delivered=delivered, response=response, again_in=again)
    return len(due)


def send(message: Message) -> tuple[bool, str]:
    """Send a message once: whether it was taken, and the answer's status or what went wrong."""
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "CalibRL-webhooks/1",
        "webhook-id": str(message.id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(message.secret, str(message.id), timestamp, message.body),
    }
    try:
        url = httpx.URL(message.url)
        # Sent to the very address that was looked at: a name may lead elsewhere a moment later.
        target = url.copy_with(host=_public_address(url))
        headers["Host"] = url.netloc.decode()
        extensions = {"sni_hostname": url.host}
        with (
            httpx.Client(timeout=TIMEOUT, trust_env=False, follow_redirects=False) as client,
            client.stream("POST", target, content=message.body, headers=headers, extensions=extensions) as answer,
        ):
            return answer.is_success, str(answer.status_code)
    except Refused as error:
        return False, str(error)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return False, f"{type(error).__name__}: {error}"[:500]


def _message(delivery: Any, webhook: Any) -> Message:
    content = {"type": delivery.type, "timestamp": delivery.created_at.isoformat(), "data": delivery.data}
    body = json.dumps(content, allow_nan=False).encode()
    return Message(delivery.id, webhook.url, webhook.secret, body, delivery.attempts)


def _public_address(url: httpx.URL) -> str:
    """An address of the URL's host that messages may go to."""
    private_too = get_settings().webhooks_to_private
    if url.scheme != "https" and not private_too:
        raise Refused("the address must begin with https://")
    try:
        found = socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refused(f"{url.host} can't be looked up: {error}") from None
    addresses = [str(entry[4][0]) for entry in found]
    # All of them: which one is connected to must not depend on luck.
    if not private_too and not all(_is_public(address) for address in addresses):
        raise Refused(f"{url.host} leads to an address that is not public; CALIBRL_WEBHOOKS_TO_PRIVATE allows it")
    return addresses[0]


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    return parsed.is_global and not parsed.is_multicast and (mapped is None or mapped.is_global)
